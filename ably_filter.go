package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"unicode/utf8"

	"letshare/ably"
)

// ablyFilter says which messages of a channel an attachment wants: a JMESPath expression over a message's name, clientId,
// headers (those of its extras) and extras. It is the part of JMESPath that compares and combines: paths, literals, == != < <= >
// >=, && || !, parentheses, contains, starts_with, ends_with and length. What a message costs is bounded by the expression's
// size, which is bounded. Immutable; any goroutine.
type ablyFilter struct {
	root filterNode
}

// filterNode computes a part of an expression: nil, bool, float64, string, []any or map[string]any. It never fails: where
// JMESPath knows an error of types it yields nil, which is false.
type filterNode func(*filterSubject) any

// filterSubject is a message as a filter sees it. Its extras are read when they are first asked for.
type filterSubject struct {
	message *ably.Message
	extras  map[string]any
	read    bool
}

// errFilter is why an expression cannot be used. Which part of it is wrong its author sees best.
var errFilter = errors.New("not a filter expression that can be used here")

// parseAblyFilter reads a filter as it stands in a channel's name, in base64.
func parseAblyFilter(encoded string) (*ablyFilter, error) {
	if len(encoded) > base64.StdEncoding.EncodedLen(maxAblyFilterBytes) {
		return nil, errFilter
	}
	text, ok := decodeBase64(encoded)
	if !ok || !utf8.ValidString(text) {
		return nil, errFilter
	}
	p := filterParser{rest: text}
	p.space()
	root := p.or()
	if p.failed || p.rest != "" {
		return nil, errFilter
	}
	return &ablyFilter{root}, nil
}

// matches reports whether a message is wanted.
func (f *ablyFilter) matches(s *filterSubject) bool { return filterTruth(f.root(s)) }

// pick returns a publication's messages that are wanted; subjects are the messages as filters see them, one for each.
func (f *ablyFilter) pick(messages []ably.Message, subjects []filterSubject) []ably.Message {
	wanted := make([]ably.Message, 0, len(messages))
	for i := range messages {
		if f.matches(&subjects[i]) {
			wanted = append(wanted, messages[i])
		}
	}
	return wanted
}

// filterSubjects makes filters see messages.
func filterSubjects(messages []ably.Message) []filterSubject {
	subjects := make([]filterSubject, len(messages))
	for i := range messages {
		subjects[i].message = &messages[i]
	}
	return subjects
}

// field is a field of the message. Extras that are too long to be looked at for every listener are as good as absent.
func (s *filterSubject) field(name string) any {
	switch name {
	case "name":
		if !s.message.Name.OK {
			return nil
		}
		return s.message.Name.V
	case "clientId":
		if s.message.ClientID == "" {
			return nil
		}
		return s.message.ClientID
	}
	if !s.read {
		s.read = true
		if len(s.message.Extras) <= maxAblyFilterText {
			_ = json.Unmarshal(s.message.Extras, &s.extras) // nothing else is ever an object
		}
	}
	switch {
	case s.extras == nil:
		return nil
	case name == "extras":
		return s.extras
	}
	return s.extras[name]
}

// filterTruth is JMESPath's: nil, false and whatever is empty are false.
func filterTruth(value any) bool {
	switch v := value.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return true
}

// filterParser reads an expression by recursive descent. After a failure what it returns means nothing.
type filterParser struct {
	rest   string // always at the beginning of a token
	depth  int    // of the parentheses, negations and arguments around it
	parts  int    // so far
	failed bool
}

// fail notes that the expression cannot be used.
func (p *filterParser) fail() filterNode {
	p.failed, p.rest = true, ""
	return func(*filterSubject) any { return nil }
}

func (p *filterParser) space() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

// take consumes a token if it is next.
func (p *filterParser) take(token string) bool {
	rest, found := strings.CutPrefix(p.rest, token)
	if found {
		p.rest = rest
		p.space()
	}
	return found
}

// enter counts a part of the expression and goes one deeper. False: there are too many, or they are too deep.
func (p *filterParser) enter() bool {
	p.parts++
	p.depth++
	return p.parts <= maxAblyFilterParts && p.depth <= maxAblyFilterDepth
}

// or reads a || b || …, whose value is that of the first that is true, or of the last.
func (p *filterParser) or() filterNode {
	left := p.and()
	for p.take("||") {
		a, b := left, p.and()
		left = func(s *filterSubject) any {
			if v := a(s); filterTruth(v) {
				return v
			}
			return b(s)
		}
	}
	return left
}

// and reads a && b && …, whose value is that of the first that is false, or of the last.
func (p *filterParser) and() filterNode {
	left := p.comparison()
	for p.take("&&") {
		a, b := left, p.comparison()
		left = func(s *filterSubject) any {
			if v := a(s); !filterTruth(v) {
				return v
			}
			return b(s)
		}
	}
	return left
}

// comparison reads a == b and its like. Only numbers are less or more than others.
func (p *filterParser) comparison() filterNode {
	left := p.unary()
	for _, operator := range [...]string{"==", "!=", "<=", ">=", "<", ">"} { // the longer ones first
		if !p.take(operator) {
			continue
		}
		right := p.unary()
		return func(s *filterSubject) any { return filterCompare(operator, left(s), right(s)) }
	}
	return left
}

func filterCompare(operator string, a, b any) any {
	switch operator {
	case "==":
		return reflect.DeepEqual(a, b)
	case "!=":
		return !reflect.DeepEqual(a, b)
	}
	x, left := a.(float64)
	y, right := b.(float64)
	if !left || !right {
		return nil
	}
	switch operator {
	case "<":
		return x < y
	case "<=":
		return x <= y
	case ">":
		return x > y
	}
	return x >= y
}

// unary reads what stands between operators.
func (p *filterParser) unary() filterNode {
	if !p.enter() {
		return p.fail()
	}
	defer func() { p.depth-- }()
	switch {
	case p.take("!"):
		node := p.unary()
		return func(s *filterSubject) any { return !filterTruth(node(s)) }
	case p.take("("):
		node := p.or()
		if !p.take(")") {
			return p.fail()
		}
		return node
	case strings.HasPrefix(p.rest, "`"):
		return p.literal()
	case strings.HasPrefix(p.rest, "'"):
		text, ok := p.quoted('\'')
		if !ok {
			return p.fail()
		}
		text = strings.NewReplacer(`\'`, `'`, `\\`, `\`).Replace(text)
		return func(*filterSubject) any { return text }
	}
	return p.path()
}

// quoted takes what stands between two of the same quotes, in which a backslash takes away a quote's meaning.
func (p *filterParser) quoted(quote byte) (text string, ok bool) {
	for i := 1; i < len(p.rest); i++ {
		switch p.rest[i] {
		case '\\':
			i++
		case quote:
			text, p.rest = p.rest[1:i], p.rest[i+1:]
			p.space()
			return text, true
		}
	}
	return "", false
}

// literal reads `JSON`.
func (p *filterParser) literal() filterNode {
	text, ok := p.quoted('`')
	var value any
	if !ok || json.Unmarshal([]byte(strings.ReplaceAll(text, "\\`", "`")), &value) != nil {
		return p.fail()
	}
	return func(*filterSubject) any { return value }
}

// identifier reads a name, or a "name" that may hold anything.
func (p *filterParser) identifier() (name string, ok bool) {
	if strings.HasPrefix(p.rest, `"`) {
		text, closed := p.quoted('"')
		return name, closed && json.Unmarshal([]byte(`"`+text+`"`), &name) == nil
	}
	end := 0
	for end < len(p.rest) {
		c := p.rest[end]
		letter := c == '_' || 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (end == 0 || c < '0' || c > '9') {
			break
		}
		end++
	}
	name, p.rest = p.rest[:end], p.rest[end:]
	p.space()
	return name, end > 0
}

// path reads name, headers.flavor, or a call of a function. What begins with another name than the four is refused: nobody
// would ever get a message.
func (p *filterParser) path() filterNode {
	quoted := strings.HasPrefix(p.rest, `"`)
	root, ok := p.identifier()
	if ok && !quoted && p.take("(") {
		return p.call(root)
	}
	if !ok || root != "name" && root != "clientId" && root != "headers" && root != "extras" {
		return p.fail()
	}
	var steps []string
	for p.take(".") {
		step, ok := p.identifier()
		if p.parts++; !ok || p.parts > maxAblyFilterParts {
			return p.fail()
		}
		steps = append(steps, step)
	}
	return func(s *filterSubject) any {
		value := s.field(root)
		for _, step := range steps {
			object, _ := value.(map[string]any)
			value = object[step]
		}
		return value
	}
}

// call reads the arguments of a function.
func (p *filterParser) call(function string) filterNode {
	arguments := []filterNode{p.or()}
	for p.take(",") {
		arguments = append(arguments, p.or())
	}
	if !p.take(")") {
		return p.fail()
	}
	if first := arguments[0]; function == "length" && len(arguments) == 1 {
		return func(s *filterSubject) any { return filterLength(first(s)) }
	}
	if len(arguments) != 2 || function != "contains" && function != "starts_with" && function != "ends_with" {
		return p.fail()
	}
	subject, wanted := arguments[0], arguments[1]
	return func(s *filterSubject) any { return filterCall(function, subject(s), wanted(s)) }
}

func filterLength(value any) any {
	switch v := value.(type) {
	case string:
		return float64(utf8.RuneCountInString(v))
	case []any:
		return float64(len(v))
	case map[string]any:
		return float64(len(v))
	}
	return nil
}

// filterCall carries out a function of two arguments: a list contains a value, a text contains, begins or ends with another.
func filterCall(function string, subject, wanted any) any {
	if list, ok := subject.([]any); ok && function == "contains" {
		for _, item := range list {
			if reflect.DeepEqual(item, wanted) {
				return true
			}
		}
		return false
	}
	text, isText := subject.(string)
	part, isPart := wanted.(string)
	switch {
	case !isText || !isPart || len(text) > maxAblyFilterText:
		return nil
	case function == "contains":
		return strings.Contains(text, part)
	case function == "starts_with":
		return strings.HasPrefix(text, part)
	}
	return strings.HasSuffix(text, part)
}
