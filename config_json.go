package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// configReader walks the tokens of one configuration file. encoding/json alone would take two keys that
// differ in case for one, the last of two equal keys, null for anything, and would name no line.
type configReader struct {
	c        *Config
	place    func(line int) string // names a line of data
	data     []byte
	dec      *json.Decoder
	keys     []configKey
	leaves   map[string]configKey // keys by name
	counted  int                  // data[:counted] holds lines-1 newlines
	lines    int
	problems []error
}

// readJSON sets what the file's text says and returns every problem found, each with its line.
func (c *Config) readJSON(data []byte) []error {
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // as some editors save it
	r := &configReader{c: c, data: data, lines: 1, keys: configKeys(), leaves: make(map[string]configKey)}
	r.place = func(line int) string { return fmt.Sprintf("%s:%d", c.file, line) }
	for _, k := range r.keys {
		r.leaves[k.name] = k
	}
	if !r.wellFormed("the file is empty; write at least {}", "text follows the closing brace of the configuration; remove it") {
		return r.problems
	}
	r.dec = json.NewDecoder(bytes.NewReader(data))
	r.dec.UseNumber()
	if token := r.next(); token != json.Delim('{') {
		r.fail("", "the configuration must be an object in braces, like {\"mode\": \"local\"}; it is %s", kindOf(token))
		return r.problems
	}
	r.object("")
	return r.problems
}

// wellFormed checks that the text is one JSON value, so that the walk itself meets no bad token. empty and trailing say
// that there is no text, or more than the one value.
func (r *configReader) wellFormed(empty, trailing string) bool {
	at, problem := 0, ""
	var raw json.RawMessage
	var syntax *json.SyntaxError
	if i := invalidUTF8(r.data); i >= 0 {
		at, problem = i, "the text is not valid UTF-8; save the file as UTF-8"
	} else if len(bytes.TrimSpace(r.data)) == 0 {
		at, problem = 0, empty
	} else if err := json.Unmarshal(r.data, &raw); errors.As(err, &syntax) {
		at, problem = int(syntax.Offset)-1, fmt.Sprintf("not valid JSON: %v; correct it here or in the line before", err)
		if strings.HasSuffix(err.Error(), "after top-level value") {
			problem = trailing
		}
	}
	if problem != "" {
		r.countTo(at)
		r.fail("", "%s", problem)
	}
	return problem == ""
}

// invalidUTF8 returns the offset of the first byte that is not UTF-8, or -1.
func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		char, size := utf8.DecodeRune(data[i:])
		if char == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// next returns the next token and moves the line to it. No token but the white space between them holds a newline.
func (r *configReader) next() json.Token {
	token, err := r.dec.Token()
	if err != nil {
		panic("config: the walk left the text that was checked: " + err.Error())
	}
	r.countTo(int(r.dec.InputOffset()))
	return token
}

// countTo moves the current line to that of an offset.
func (r *configReader) countTo(offset int) {
	offset = min(offset, len(r.data))
	if offset > r.counted {
		r.lines += bytes.Count(r.data[r.counted:offset], []byte("\n"))
		r.counted = offset
	}
}

// where names the current line.
func (r *configReader) where() string { return r.place(r.lines) }

// fail notes a problem on the current line; what is the key, with or without " = value", or "".
func (r *configReader) fail(what, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if what != "" {
		text = what + ": " + text
	}
	r.problems = append(r.problems, fmt.Errorf("%s: %s", r.where(), text))
}

// object reads the members of an object whose brace is read; prefix is "" or "section.".
func (r *configReader) object(prefix string) {
	type place struct {
		name string
		line int
	}
	seen := make(map[string]place) // by folded name
	for r.dec.More() {
		key := r.next().(string)
		name := prefix + key
		if first, twice := seen[foldKey(key)]; twice {
			r.fail(printable(name), "stands here for the second time, after %s in line %d; remove one of them", printable(first.name), first.line)
			r.skip(r.next())
			continue
		}
		seen[foldKey(key)] = place{name, r.lines}
		r.member(name, prefix)
	}
	r.next() // the closing brace
}

// member reads the value of one key.
func (r *configReader) member(name, prefix string) {
	k, known := r.leaves[name]
	if section, key, dotted := strings.Cut(strings.TrimPrefix(name, prefix), "."); known && dotted {
		r.fail(name, "must stand in braces of its own: %q: {%q: …}", section, key)
		r.skip(r.next())
		return
	} else if known {
		r.leaf(k)
		return
	}
	for _, k := range r.keys {
		if !strings.HasPrefix(k.name, name+".") {
			continue
		}
		if token := r.next(); token == json.Delim('{') {
			r.object(name + ".")
		} else {
			r.fail(name, "must be an object in braces, like {%q: …}; it is %s", strings.TrimPrefix(k.name, name+"."), kindOf(token))
			r.skip(token)
		}
		return
	}
	r.fail(printable(name), "unknown key; %s", r.suggest(name, prefix))
	r.skip(r.next())
}

// suggest names the key that was meant, or those there are.
func (r *configReader) suggest(name, prefix string) string {
	var names []string
	for _, k := range r.keys {
		rest, inside := strings.CutPrefix(k.name, prefix)
		if !inside {
			continue
		}
		first, _, _ := strings.Cut(rest, ".")
		if foldKey(prefix+first) == foldKey(name) {
			return fmt.Sprintf("write it as %q", first)
		}
		if len(names) == 0 || names[len(names)-1] != first {
			names = append(names, first)
		}
	}
	where := "at the top"
	if prefix != "" {
		where = "in " + strings.TrimSuffix(prefix, ".")
	}
	return fmt.Sprintf("%s there are %s", where, strings.Join(names, ", "))
}

// leaf reads the value of a known key.
func (r *configReader) leaf(k configKey) {
	token := r.next()
	r.c.sources[k.name] = r.where()
	problem := ""
	switch field := r.c.field(k).Addr().Interface().(type) {
	case *string:
		if s, ok := token.(string); ok {
			*field = s
		} else {
			problem = "must be a string in quotes"
		}
	case *bool:
		if b, ok := token.(bool); ok {
			*field = b
		} else {
			problem = "must be true or false, without quotes"
		}
	case *int:
		n, ok := token.(json.Number)
		if problem = notWhole; ok {
			*field, problem = parseInt(n.String())
		}
	case *int64:
		n, ok := token.(json.Number)
		if problem = notWhole; ok {
			*field, problem = parseWhole(n.String())
		}
	case *float64:
		n, ok := token.(json.Number)
		if problem = notNumber; ok {
			*field, problem = parseNumber(n.String())
		}
	case *[]string:
		if token == json.Delim('[') {
			*field = r.list(k)
			return
		}
		problem = `must be a list of strings, like ["one", "two"]`
	case *[]AblyKey, *[]AblyNamespace:
		if token == json.Delim('[') {
			r.records(k.name, r.c.field(k))
			return
		}
		problem = "must be a list of objects, like [{" + strconv.Quote(memberNames(r.c.field(k).Type().Elem())[0]) + `: "…"}]`
	}
	if problem != "" {
		r.fail(k.name+" = "+showToken(token, k.secret), "%s", problem)
		r.skip(token)
	}
}

// list reads the strings of a list whose bracket is read, and where each stands.
func (r *configReader) list(k configKey) []string {
	values := []string{}
	for r.dec.More() {
		token := r.next()
		name := fmt.Sprintf("%s[%d]", k.name, len(values))
		r.c.sources[name] = r.where()
		value, ok := token.(string)
		if !ok {
			r.fail(name+" = "+showToken(token, k.secret), "must be a string in quotes")
			r.skip(token)
		}
		values = append(values, value)
	}
	r.next() // the closing bracket
	return values
}

// skip passes over the rest of the value that begins with token.
func (r *configReader) skip(token json.Token) {
	for depth := 0; ; token = r.next() {
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return
		}
	}
}

const (
	notWhole  = "must be a whole number, without quotes, point or exponent"
	notNumber = "must be a number, without quotes"
)

// parseWhole reads a JSON number that is a whole one; its problem is "" or what is wrong.
func parseWhole(s string) (n int64, problem string) {
	n, err := strconv.ParseInt(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, "is out of range; write a smaller number"
	} else if err != nil {
		return 0, notWhole
	}
	return n, ""
}

// parseInt is parseWhole for an int, which has 32 bits on some machines.
func parseInt(s string) (n int, problem string) {
	wide, problem := parseWhole(s)
	if n = int(wide); int64(n) != wide {
		return 0, "is out of range; write a smaller number"
	}
	return n, problem
}

// parseNumber reads a JSON number; its problem is "" or what is wrong.
func parseNumber(s string) (n float64, problem string) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil { // the grammar was checked: it can only be the range
		return 0, "is out of range; write a smaller number"
	}
	return n, ""
}

// foldKey makes keys equal that differ only in case, in any script (encoding/json folds the same).
func foldKey(s string) string { return strings.ToLower(strings.ToUpper(s)) }

// printable quotes a key of the file when it has to be, and cuts a long one.
func printable(name string) string {
	const longest = 80
	if len(name) > longest {
		name = strings.ToValidUTF8(name[:longest], "") + "…"
	}
	if quoted := strconv.Quote(name); quoted != `"`+name+`"` || name == "" {
		return quoted
	}
	return name
}

// showToken writes the value that begins with token, for a message; of a secret only its kind.
func showToken(token json.Token, secret bool) string {
	if _, nested := token.(json.Delim); nested || secret {
		return "(" + kindOf(token) + ")"
	}
	if s, ok := token.(string); ok {
		return strconv.Quote(withoutUserinfo(s))
	}
	if token == nil {
		return "null"
	}
	return fmt.Sprint(token)
}

// kindOf says what kind of value begins with token.
func kindOf(token json.Token) string {
	switch token {
	case json.Delim('{'):
		return "an object"
	case json.Delim('['):
		return "a list"
	case nil:
		return "null"
	}
	switch token.(type) {
	case string:
		return "a string"
	case bool:
		return "true or false"
	}
	return "a number"
}
