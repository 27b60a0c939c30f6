package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// A key of the configuration can hold a list of records: objects with a few members of their own, such as ably.keys. They are
// read by the walk of config_json.go, from the file, from a variable or from a secret's file alike.

// memberNames returns the keys of a record, in the order of its struct.
func memberNames(record reflect.Type) []string {
	names := make([]string, record.NumField())
	for i := range names {
		names[i] = record.Field(i).Tag.Get("json")
	}
	return names
}

// records reads a list of records whose bracket is read, and where each member stands.
func (r *configReader) records(name string, list reflect.Value) {
	list.Set(reflect.MakeSlice(list.Type(), 0, 0))
	for r.dec.More() {
		record := reflect.New(list.Type().Elem()).Elem()
		element := fmt.Sprintf("%s[%d]", name, list.Len())
		token := r.next()
		r.c.sources[element] = r.where()
		if token == json.Delim('{') {
			r.record(element, record)
		} else {
			r.fail(element+" = "+showToken(token, true), "must be an object in braces, like {%q: …}", memberNames(record.Type())[0])
			r.skip(token)
		}
		list.Set(reflect.Append(list, record))
	}
	r.next() // the closing bracket
}

// record reads the members of a record whose brace is read.
func (r *configReader) record(element string, record reflect.Value) {
	names := memberNames(record.Type())
	lines := make(map[string]int) // by name
	for r.dec.More() {
		key := r.next().(string)
		name := element + "." + key
		first, twice := lines[key]
		lines[key] = r.lines
		i := slices.Index(names, key)
		switch {
		case twice:
			r.fail(printable(name), "stands here for the second time, after line %d; remove one of them", first)
			r.skip(r.next())
		case i < 0:
			r.fail(printable(name), "unknown key; %s", suggestMember(names, key, element))
			r.skip(r.next())
		default:
			r.recordMember(name, record.Field(i), record.Type().Field(i).Tag.Get("secret") == "true")
		}
	}
	r.next() // the closing brace
}

// suggestMember names the member that was meant, or those there are.
func suggestMember(names []string, key, element string) string {
	for _, name := range names {
		if foldKey(name) == foldKey(key) {
			return fmt.Sprintf("write it as %q", name)
		}
	}
	return fmt.Sprintf("in %s there are %s", element, strings.Join(names, ", "))
}

// recordMember reads the value of a known member of a record.
func (r *configReader) recordMember(name string, field reflect.Value, secret bool) {
	token := r.next()
	r.c.sources[name] = r.where()
	problem := ""
	switch field := field.Addr().Interface().(type) {
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
	case *map[string][]string:
		if token == json.Delim('{') {
			*field = r.lists(name)
			return
		}
		problem = `must be an object of lists, like {"*": ["subscribe"]}`
	}
	if problem != "" {
		// The names of keys may have a secret behind their colon.
		r.fail(name+" = "+showToken(token, true), "%s", problem)
		r.skip(token)
	}
}

// lists reads an object of lists of strings whose brace is read.
func (r *configReader) lists(name string) map[string][]string {
	all := make(map[string][]string)
	for r.dec.More() {
		key := r.next().(string)
		at := name + "[" + strconv.Quote(key) + "]"
		_, twice := all[key]
		token := r.next()
		if twice {
			r.fail(at, "stands here for the second time; remove one of them")
			r.skip(token)
		} else if token != json.Delim('[') {
			r.fail(at+" = "+showToken(token, false), `must be a list of strings, like ["one", "two"]`)
			r.skip(token)
		} else {
			all[key] = r.strings(at)
		}
	}
	r.next() // the closing brace
	return all
}

// strings reads a list of strings whose bracket is read.
func (r *configReader) strings(name string) []string {
	values := []string{}
	for r.dec.More() {
		token := r.next()
		value, ok := token.(string)
		if !ok {
			r.fail(fmt.Sprintf("%s[%d] = %s", name, len(values), showToken(token, false)), "must be a string in quotes")
			r.skip(token)
		}
		values = append(values, value)
	}
	r.next() // the closing bracket
	return values
}

// readRecords sets a list of records from the JSON text of a variable or a secret's file, and returns every problem found.
// place names a line of it.
func (c *Config) readRecords(k configKey, text string, place func(line int) string) []error {
	data := bytes.TrimPrefix([]byte(text), []byte("\ufeff"))
	r := &configReader{c: c, place: place, data: data, lines: 1}
	if !r.wellFormed(k.name+": the value is empty; write at least []", "text follows the closing bracket of "+k.name+"; remove it") {
		return r.problems
	}
	r.dec = json.NewDecoder(bytes.NewReader(data))
	r.dec.UseNumber()
	r.leaf(k)
	return r.problems
}
