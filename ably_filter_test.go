package main

import (
	"encoding/base64"
	"strings"
	"testing"

	"letshare/ably"
)

// filterOf reads a filter as a client writes it.
func filterOf(text string) (*ablyFilter, error) {
	return parseAblyFilter(base64.StdEncoding.EncodeToString([]byte(text)))
}

// An ice cream, as Ably's documentation sells it, is what each of these expressions is held against.
func TestFiltersPickMessages(t *testing.T) {
	iceCream := ably.Message{Name: ably.Some("ice-cream"), ClientID: "anna",
		Extras: []byte(`{"headers":{"flavor":"strawberry","cost":35,"temp":0,"sold":false,"x-y":"dash","tags":["cold","sweet"],"note":""},"ref":{"type":"sale"}}`)}
	for text, want := range map[string]bool{
		"name == `\"ice-cream\"` && headers.flavor == `\"strawberry\"` && headers.cost < `50`": true,
		"headers.flavor == `\"vanilla\"` || headers.flavor == `\"strawberry\"`":                true,
		"name == 'ice-cream'": true,
		"name == 'ice'":       false,
		"name != 'ice'":       true,
		" clientId=='anna' ":  true,
		"clientId == 'ben'":   false,
		"headers.cost >= `35` && headers.cost <= `35`":               true,
		"headers.cost > `35` || headers.cost < `35`":                 false,
		"headers.cost == `35.0`":                                     true,
		"headers.cost == '35'":                                       false,
		"headers.flavor < 'tomato'":                                  false, // only numbers are less than others
		"headers.none == `null`":                                     true,
		"headers.none":                                               false,
		"!headers.none":                                              true,
		"headers.temp":                                               true, // a number is true, 0 too
		"headers.sold":                                               false,
		"!headers.sold && !headers.note":                             true,
		"headers.\"x-y\" == 'dash'":                                  true,
		"extras.headers.flavor == 'strawberry'":                      true,
		"extras.ref.type == 'sale'":                                  true,
		"headers.flavor.deeper == `null`":                            true,
		"contains(headers.tags, 'cold')":                             true,
		"contains(headers.tags, 'co')":                               false,
		"contains(headers.flavor, 'berry')":                          true,
		"starts_with(name, 'ice') && ends_with(name, 'cream')":       true,
		"starts_with(headers.cost, '3')":                             false,
		"!contains(headers.none, 'x')":                               true,
		"length(headers.tags) == `2` && length(name) == `9`":         true,
		"contains(`[\"choc\",\"strawberry\"]`, headers.flavor)":      true,
		"(headers.none || headers.flavor) == 'strawberry'":           true,
		"!(name == 'a' || name == 'ice-cream')":                      false,
		"!name == 'a'":                                               false, // (!name) == 'a'
		"name == 'a' && name == 'b' || clientId == 'anna'":           true,
		"name == 'a' && (name == 'b' || clientId == 'anna')":         false,
		`name == 'it\'s'`:                                            false,
		"name == `\"\\u0069ce-cream\"`":                              true,
		"headers == `{}`":                                            false,
		strings.Repeat("(", 14) + "name" + strings.Repeat(")", 14):   true,
		"name == 'ice-cream' && name == 'ice-cream' && name == 'b' ": false,
	} {
		f, err := filterOf(text)
		if err != nil {
			t.Errorf("%s is refused", text)
			continue
		}
		if got := f.matches(&filterSubject{message: &iceCream}); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

// What cannot be read, or would cost too much, is refused, and so is what can never be true: the contents are not looked at.
func TestFiltersThatAreRefused(t *testing.T) {
	for _, text := range []string{
		"", " ", "data == 'x'", "unknown", "name ==", "== 'x'", "name = 'x'", "name == 'x", "name == `x`", "name == `\"x\"", "(name", "name)",
		"name == 'a' == 'b'", "name 'x'", "name && ", "!", "headers.", "headers..x", "headers.1", "headers[0]", "headers.*", "contains(name)",
		"sum(headers.x)", "contains(name, 'a', 'b')", "contains(name 'a')", "contains(name, 'a'", "name | length(@)", "name\x00",
		strings.Repeat("!", 17) + "name", strings.Repeat("(", 17) + "name" + strings.Repeat(")", 17),
		"name" + strings.Repeat(" || name", 64), "headers" + strings.Repeat(".a", 64), "name == '" + strings.Repeat("x", 1024) + "'",
	} {
		if _, err := filterOf(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	for _, encoded := range []string{"not base64!", "/w==", ""} {
		if _, err := parseAblyFilter(encoded); err == nil {
			t.Errorf("the base64 %q is accepted", encoded)
		}
	}
}

// Extras beyond all measure are not looked into: they would be read for every listener.
func TestFiltersDoNotLookIntoHugeExtras(t *testing.T) {
	f, err := filterOf("headers.a == 'x'")
	if err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int]bool{10: true, maxAblyFilterText: false} {
		m := ably.Message{Extras: []byte(`{"headers":{"a":"x"},"b":"` + strings.Repeat("y", size) + `"}`)}
		if got := f.matches(&filterSubject{message: &m}); got != want {
			t.Errorf("extras of %d bytes: %v, want %v", len(m.Extras), got, want)
		}
	}
}

// One who asks for a part of a channel gets that part, live, after rewinding and after a gap; of a publish of several the
// messages that fit. Others get everything, and the answers to what cannot be read leave the connection alive.
func TestAnAttachmentGetsWhatItsFilterLeaves(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	priced := func(name, cost string) ably.Message {
		m := ablyText(name, cost)
		m.Extras = []byte(`{"headers":{"cost":` + cost + `}}`)
		return m
	}
	shop := s.ably(t, "shop")
	shop.publish(t, "kiosk", priced("ice", "10"))
	shop.publish(t, "kiosk", priced("ice", "90"))

	cheap := "[filter=" + base64.StdEncoding.EncodeToString([]byte("name == 'ice' && headers.cost < `50`"))
	guest, other := s.ably(t, "guest", "format=msgpack"), s.ably(t, "other")
	other.attach(t, "kiosk")
	guest.attach(t, cheap+"?rewind=10]kiosk")
	guest.hears(t, cheap+"?rewind=10]kiosk", "ice 10")
	attached := guest.attach(t, cheap+"]kiosk")

	shop.publish(t, "kiosk", priced("ice", "20"), priced("tea", "30"), priced("ice", "99"), priced("ice", "40"))
	other.hears(t, "kiosk", "ice 20", "tea 30", "ice 99", "ice 40")
	guest.hears(t, cheap+"?rewind=10]kiosk", "ice 20", "ice 40")
	guest.hears(t, cheap+"]kiosk", "ice 20", "ice 40")
	shop.publish(t, "kiosk", priced("tea", "1"))
	shop.publish(t, "kiosk", ablyText("ice", "no headers"))
	shop.publish(t, "kiosk", priced("ice", "7"))
	guest.hears(t, cheap+"?rewind=10]kiosk", "ice 7")
	guest.hears(t, cheap+"]kiosk", "ice 7")

	nothing := "[filter=" + base64.StdEncoding.EncodeToString([]byte("name == 'coffee'")) + "?rewind=10]kiosk"
	if m := s.ably(t, "picky").attach(t, nothing); m.Flags&ably.FlagHasBacklog != 0 {
		t.Error("messages of the past are promised of which the filter leaves nothing")
	}
	late := s.ably(t, "late")
	resumed := late.attach(t, cheap+"]kiosk", func(m *ably.ProtocolMessage) { m.ChannelSerial = attached.ChannelSerial })
	if resumed.Flags&ably.FlagResumed == 0 {
		t.Error("a filter takes away the continuity")
	}
	late.hears(t, cheap+"]kiosk", "ice 20", "ice 40")
	late.hears(t, cheap+"]kiosk", "ice 7")

	for _, name := range []string{"[filter=]kiosk", "[filter=bmFtZQ==", "[filter=%%]kiosk", "[filter=ZGF0YQ==]kiosk", "[filter=bmFtZQ==][?rewind=1]kiosk"} {
		late.say(t, ably.ProtocolMessage{Action: ably.ActionAttach, Channel: ably.Some(name)})
		if m := late.wantAction(t, ably.ActionError, name); m.Error.Code != 40010 {
			t.Errorf("%s: %v", name, m.Error)
		}
	}
	wantHubConsistent(t, s)
}

// FuzzAblyFilter holds the reader of filters to ending without a panic whatever a client writes, and what it accepts to
// saying the same of the same message twice.
func FuzzAblyFilter(f *testing.F) {
	for _, text := range []string{"name == `\"x\"` && headers.a < `5`", "!contains(headers.\"a b\", 'c')", "((name)||clientId)", "length(extras) != `null`"} {
		f.Add(text, `{"headers":{"a":1,"a b":["c"]}}`)
	}
	f.Fuzz(func(t *testing.T, text, extras string) {
		filter, err := filterOf(text)
		if err != nil {
			return
		}
		m := ably.Message{Name: ably.Some("x"), ClientID: "anna", Extras: []byte(extras)}
		once, again := filter.matches(&filterSubject{message: &m}), filter.matches(&filterSubject{message: &m})
		if once != again {
			t.Errorf("%q is of two minds about %s", text, extras)
		}
	})
}
