package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
)

// readEnvironment sets what the environment says, over what is set already, and returns every problem found.
// An empty variable counts as unset.
func (c *Config) readEnvironment(getenv func(string) string) []error {
	var problems []error
	for _, k := range configKeys() {
		value, fromFile := getenv(k.env), ""
		if k.secret {
			fromFile = getenv(k.env + "_FILE")
		}
		switch {
		case value != "" && fromFile != "":
			problems = append(problems, fmt.Errorf("environment variables %s and %s_FILE: %s is given twice; unset one of them", k.env, k.env, k.name))
		case value != "":
			problems = append(problems, c.setVariable(k, value)...)
		case fromFile != "":
			problems = append(problems, c.setSecretFile(k, fromFile)...)
		}
	}
	return problems
}

// setVariable sets a key from the text of its variable, and returns what is wrong with it.
func (c *Config) setVariable(k configKey, text string) []error {
	source, problem := "environment variable "+k.env, ""
	switch field := c.field(k).Addr().Interface().(type) {
	case *string:
		*field = text
	case *[]string:
		*field = strings.Split(text, ",")
		for i := range *field {
			(*field)[i] = strings.TrimSpace((*field)[i])
		}
	case *bool:
		if *field = text == "true"; text != "true" && text != "false" {
			problem = "must be true or false"
		}
	case *int:
		if problem = notWhole; isNumber(text) {
			*field, problem = parseInt(text)
		}
	case *int64:
		if problem = notWhole; isNumber(text) {
			*field, problem = parseWhole(text)
		}
	case *float64:
		if problem = notNumber; isNumber(text) {
			*field, problem = parseNumber(text)
		}
	case *[]AblyKey, *[]AblyNamespace:
		c.setSource(k, source)
		return c.readRecords(k, text, func(int) string { return source })
	}
	if problem != "" {
		return []error{fmt.Errorf("%s: %s = %s: %s", source, k.name, show(text, k.secret), problem)}
	}
	c.setSource(k, source)
	return nil
}

// isNumber says whether text is a number as JSON writes it: no "inf", no hexadecimal, no underscores.
func isNumber(text string) bool {
	return (text[0] == '-' || '0' <= text[0] && text[0] <= '9') && json.Valid([]byte(text)) && strings.TrimSpace(text) == text
}

// setSecretFile sets a secret from the file that its _FILE variable names, without the newline at its end.
// A list of strings has one value in each line, a list of objects is JSON. An empty file is an error: its secret is about to
// arrive, or was lost.
func (c *Config) setSecretFile(k configKey, path string) []error {
	source := fmt.Sprintf("environment variable %s_FILE (%s)", k.env, path)
	data, err := readBounded(path)
	if err != nil {
		return []error{fmt.Errorf("%s: cannot read the value of %s: %w; correct the path", source, k.name, err)}
	}
	text := withoutNewline(string(data))
	if text == "" {
		return []error{fmt.Errorf("%s: the value of %s is missing: the file is empty; write the secret into it, or unset the variable", source, k.name)}
	}
	switch field := c.field(k).Addr().Interface().(type) {
	case *string:
		*field = text
	case *[]string:
		*field = strings.Split(text, "\n")
		for i := range *field {
			(*field)[i] = strings.TrimSuffix((*field)[i], "\r")
		}
	case *[]AblyKey:
		c.setSource(k, source)
		return c.readRecords(k, text, func(line int) string {
			return fmt.Sprintf("environment variable %s_FILE (%s:%d)", k.env, path, line)
		})
	}
	c.setSource(k, source)
	return nil
}

// withoutNewline drops one newline, of Unix or of Windows, from the end.
func withoutNewline(s string) string {
	if rest, ok := strings.CutSuffix(s, "\n"); ok {
		return strings.TrimSuffix(rest, "\r")
	}
	return s
}

// setSource notes where a key's value came from, and forgets where the file had the values of its list.
func (c *Config) setSource(k configKey, source string) {
	maps.DeleteFunc(c.sources, func(name, _ string) bool { return strings.HasPrefix(name, k.name+"[") })
	c.sources[k.name] = source
}
