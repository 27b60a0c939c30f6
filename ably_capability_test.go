package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// mustCapability parses a capability that is known to be good.
func mustCapability(t testing.TB, text string) *ablyCapability {
	t.Helper()
	c, problem := parseAblyCapability(text)
	if problem != nil {
		t.Fatalf("%s: %v", text, problem)
	}
	return c
}

func TestACapabilityAllowsWhatItsResourcesMatch(t *testing.T) {
	for _, row := range []struct {
		capability string
		allowed    string // channels, separated by spaces
		refused    string
	}{
		{`{"*":["publish"]}`, "a a:b a:b:c * foo* : a: signal:all", "[meta]a [queue]a [meta]log [other]a [meta]"},
		{`{"[*]*":["publish"]}`, "a a:b [meta]a [queue]a:b", "[other]a [meta] [queue]"},
		{`{"[meta]*":["publish"]}`, "[meta]a [meta]a:b", "a [queue]a"},
		{`{"[queue]*":["publish"]}`, "[queue]a", "a [meta]a"},
		{`{"[meta]log":["publish"]}`, "[meta]log", "log [meta]logs"},
		{`{"[*]chat:*":["publish"]}`, "chat:a [meta]chat:a", "chat [meta]chats"},
		{`{"a":["publish"]}`, "a", "A a: :a a:b aa"},
		{`{"a:*":["publish"]}`, "a:b a:b:c a: a:*", "a b:a aa:b a*"},
		{`{"a:*:c":["publish"]}`, "a:b:c a::c a:*:c", "a:c a:b:c:d a:b:d"},
		{`{"*:b":["publish"]}`, "a:b :b", "b a:b:c a:c"},
		{`{"a:*:*":["publish"]}`, "a:b:c a:b:c:d a::", "a:b a"},
		{`{"foo*":["publish"]}`, "foo*", "foo foobar foo:bar"},
		{`{"foo*:x":["publish"]}`, "foo*:x", "foo:x foobar:x"},
		{`{"a":["publish"],"b:*":["subscribe","publish"]}`, "a b:c", "b c"},
		{`{"*":["subscribe"],"a:*":["publish"]}`, "a:b", "b"},
		{`{"*":["*"]}`, "a", "[meta]a"},
		{`{}`, "", "a [meta]a"},
	} {
		c := mustCapability(t, row.capability)
		for _, channel := range strings.Fields(row.allowed) {
			if !c.allows(channel, ablyOpPublish) || !c.ops(channel).has(ablyOpPublish) {
				t.Errorf("%s does not allow %s", row.capability, channel)
			}
		}
		for _, channel := range append(strings.Fields(row.refused), "") {
			if c.allows(channel, ablyOpPublish) || c.ops(channel).has(ablyOpPublish) {
				t.Errorf("%s allows %q", row.capability, channel)
			}
		}
		if c.allows("a", ablyOpPushAdmin) != strings.Contains(row.capability, `*":["*"]`) {
			t.Errorf("%s allows an operation that it does not name, or not all with *", row.capability)
		}
	}
}

func TestAChannelHasTheOperationsOfAllItsResources(t *testing.T) {
	c := mustCapability(t, `{"*":["subscribe"],"a:*":["publish","history"],"a:b":["presence"]}`)
	for channel, want := range map[string]string{
		"x":     "subscribe",
		"a:c":   "history publish subscribe",
		"a:b":   "history presence publish subscribe",
		"[x]":   "",
		"[x]a":  "",
		"[meta": "",
	} {
		if got := strings.Join(c.ops(channel).names(), " "); got != want {
			t.Errorf("%s has %q, want %q", channel, got, want)
		}
	}
}

// The examples of Ably's own test app are among these.
func TestIntersections(t *testing.T) {
	const (
		nothing = "40160"
		rooms   = `{"cansubscribe:*":["subscribe"],"canpublish:*":["publish"],"canpublish:andpresence":["presence","publish"],"pushenabled:*":["publish","subscribe","push-subscribe"],"pushenabled:admin:*":["publish","subscribe","push-admin"]}`
		plain   = `{"channel0":["publish"],"channel2":["publish","subscribe"],"channel6":["*"]}`
	)
	for _, row := range []struct{ key, wanted, want string }{
		{`{"a:*":["publish"]}`, `{"*":["*"]}`, `{"a:*":["publish"]}`},
		{`{"*":["*"]}`, `{"a":["publish"]}`, `{"a":["publish"]}`},
		{`{"*":["*"]}`, `{"*":["*"]}`, `{"*":["*"]}`},
		{rooms, rooms, `{"canpublish:*":["publish"],"canpublish:andpresence":["presence","publish"],"cansubscribe:*":["subscribe"],"pushenabled:*":["publish","push-subscribe","subscribe"],"pushenabled:admin:*":["publish","push-admin","subscribe"]}`},
		{rooms, `{"canpublish:test":["subscribe"]}`, nothing},
		{rooms, `{"canpublish:check":["publish"]}`, `{"canpublish:check":["publish"]}`},
		{plain, `{"channelx":["publish"]}`, nothing},
		{plain, `{"channel2":["presence","subscribe"],"channelx":["presence","subscribe"]}`, `{"channel2":["subscribe"]}`},
		{plain, `{"channel2":["*"]}`, `{"channel2":["publish","subscribe"]}`},
		{plain, `{"channel6":["publish","subscribe"]}`, `{"channel6":["publish","subscribe"]}`},
		{`{"*":["subscribe"]}`, `{"cansubscribe:*":["subscribe"]}`, `{"cansubscribe:*":["subscribe"]}`},
		{`{"a:*:c":["*"]}`, `{"a:b:*":["publish"]}`, `{"a:b:c":["publish"]}`},
		{`{"*:b":["*"]}`, `{"a:*":["publish"]}`, `{"a:b":["publish"]}`},
		{`{"*:b":["*"]}`, `{"a:c":["publish"]}`, nothing},
		{`{"a:*":["*"]}`, `{"a":["publish"]}`, nothing},
		{`{"a:*":["*"]}`, `{"b:*":["publish"]}`, nothing},
		{`{"[*]*":["*"]}`, `{"[meta]*":["subscribe"]}`, `{"[meta]*":["subscribe"]}`},
		{`{"*":["*"]}`, `{"[*]*":["subscribe"]}`, `{"*":["subscribe"]}`},
		{`{"*":["*"]}`, `{"[meta]*":["subscribe"]}`, nothing},
		{`{"*":["subscribe"],"a:*":["publish"]}`, `{"a:b":["subscribe","publish","presence"]}`, `{"a:b":["publish","subscribe"]}`},
		{`{"<&>\u2028":["*"]}`, `{"*":["publish"]}`, `{"<&>\u2028":["publish"]}`},
		{`{"*":["*"]}`, `{}`, nothing},
	} {
		key, wanted := mustCapability(t, row.key), mustCapability(t, row.wanted)
		got, problem := key.intersect(wanted)
		text := ""
		if problem != nil {
			if text = fmt.Sprint(problem.Code); problem.StatusCode != 401 {
				t.Errorf("status %d, want 401", problem.StatusCode)
			}
		} else {
			text = got.String()
		}
		if text != row.want {
			t.Errorf("%s with %s is\n%s, want\n%s", row.key, row.wanted, text, row.want)
		}
	}
}

func TestAKeysCapabilityKeepsTheOrderOfItsOperations(t *testing.T) {
	c := mustCapability(t, ` { "b" : ["subscribe", "publish"], "a": ["*"] } `)
	if want := `{"a":["*"],"b":["subscribe","publish"]}`; c.String() != want {
		t.Errorf("%s, want %s", c, want)
	}
}

func TestMalformedCapabilitiesAreBadRequests(t *testing.T) {
	many := make(map[string][]string)
	for i := range maxAblyResources + 1 {
		many[fmt.Sprint(i)] = []string{"publish"}
	}
	for _, text := range []string{
		"", " ", "null", "[]", `"*"`, "{", `{"a":["publish"]} x`, `{"a":["publish"]}{}`, "{\"a\xff\":[\"publish\"]}",
		`{"a":[]}`, `{"a":null}`, `{"a":"publish"}`, `{"a":{}}`, `{"a":[1]}`, `{"a":[null]}`, `{"a":["*","publish"]}`, `{"a":["publish","*"]}`, `{"a":["*","*"]}`,
		`{"a":["publish_"]}`, `{"a":["Publish"]}`, `{"a":[""]}`,
		`{"":["publish"]}`, `{"[meta]":["publish"]}`, `{"[other]a":["publish"]}`, `{"[?rewind=1]a":["publish"]}`, `{"[":["publish"]}`,
		`{"a":["publish"],"a":["subscribe"]}`, `{"a":["publish"],"\u0061":["subscribe"]}`,
		`{"` + strings.Repeat("a", maxAblyResourceBytes+1) + `":["publish"]}`,
		`{"a":["publish"]}` + strings.Repeat(" ", maxAblyCapabilityBytes),
		toJSON(t, many),
		strings.Repeat("[", 2000),
	} {
		if c, problem := parseAblyCapability(text); problem == nil {
			t.Errorf("%.60q is read as %s", text, c)
		} else if problem.Code != 40000 || problem.StatusCode != 400 {
			t.Errorf("%.60q: %v with status %d, want 40000 with 400", text, problem, problem.StatusCode)
		}
	}
}

func TestAnIntersectionIsNoWayToManyResources(t *testing.T) {
	left, right := make(map[string][]string), make(map[string][]string)
	for i := range 20 {
		left[fmt.Sprintf("*:%d:*", i)], right[fmt.Sprintf("%d:*", i)] = []string{"publish"}, []string{"publish"}
	}
	if _, problem := mustCapability(t, toJSON(t, left)).intersect(mustCapability(t, toJSON(t, right))); problem == nil || problem.Code != 40000 {
		t.Errorf("got %v, want 40000", problem)
	}
}

// randomCapability makes a capability of few segments, so that resources meet.
func randomCapability(t *testing.T, r *rand.Rand) *ablyCapability {
	listed := make(map[string][]string)
	for range 1 + r.IntN(3) {
		scope := [...]string{"", "", "", "[meta]", "[*]"}[r.IntN(5)]
		ops := [...][]string{{"*"}, {"publish"}, {"subscribe", "publish"}, {"history"}}[r.IntN(4)]
		listed[scope+randomChannel(r, []string{"a", "b", "*", "*", "", "a*"})] = ops
	}
	delete(listed, "")
	delete(listed, "[meta]")
	delete(listed, "[*]")
	return mustCapability(t, toJSON(t, listed))
}

func randomChannel(r *rand.Rand, segments []string) string {
	var name []string
	for range 1 + r.IntN(3) {
		name = append(name, segments[r.IntN(len(segments))])
	}
	return strings.Join(name, ":")
}

// Whatever the two are, their intersection allows exactly what both allow.
func TestAnIntersectionAllowsWhatBothAllow(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	met := 0
	for range 1000 {
		a, b := randomCapability(t, r), randomCapability(t, r)
		both, problem := a.intersect(b)
		other, _ := b.intersect(a)
		if problem == nil && both.String() != other.String() {
			t.Fatalf("%s with %s is %s, and the other way round %s", a, b, both, other)
		}
		for range 10 {
			channel := [...]string{"", "", "[meta]", "[queue]"}[r.IntN(4)] + randomChannel(r, []string{"a", "b", "", "a*", "*"})
			want, got := a.ops(channel)&b.ops(channel), ablyOps(0)
			if problem == nil {
				got = both.ops(channel)
			}
			if got != want {
				t.Fatalf("%s with %s is %v: on %q it allows %v, want %v", a, b, both, channel, got.names(), want.names())
			}
			if want != 0 {
				met++
			}
		}
	}
	if met < 200 {
		t.Errorf("only %d channels were allowed by both: the test looks at nothing", met)
	}
}

func TestAskingACapabilityAllocatesNothing(t *testing.T) {
	everything, some := mustCapability(t, `{"*":["*"]}`), mustCapability(t, `{"a:*":["publish"],"b":["subscribe"],"*:c":["history"]}`)
	if n := testing.AllocsPerRun(100, func() {
		everything.allows("signal:all", ablyOpPublish)
		some.allows("a:b", ablyOpPublish)
		some.allows("b:b", ablyOpSubscribe)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAblyCapability(b *testing.B) {
	c := mustCapability(b, `{"*":["*"]}`)
	for b.Loop() {
		c.allows("signal:all", ablyOpPublish)
	}
}

// FuzzAblyCapability: any text is refused, or read as encoding/json reads it, written so that it is read the same again, and
// together with itself and with everything it is what it was.
func FuzzAblyCapability(f *testing.F) {
	f.Add(`{"*":["*"]}`, "a:b")
	f.Add(`{"a:*:c":["publish","subscribe"],"[meta]*":["history"]}`, "[meta]a")
	f.Add(`{"a":["*","publish"]}`, "a")
	everything := mustCapability(f, `{"[*]*":["*"]}`)
	f.Fuzz(func(t *testing.T, text, channel string) {
		c, problem := parseAblyCapability(text)
		if problem != nil {
			if problem.Code != 40000 || problem.StatusCode != 400 {
				t.Fatalf("refused by %v", problem)
			}
			return
		}
		var listed map[string][]string
		if err := json.Unmarshal([]byte(text), &listed); err != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", err)
		}
		if len(listed) != len(c.rules) {
			t.Fatalf("%d resources, want %d", len(c.rules), len(listed))
		}
		if again, problem := parseAblyCapability(c.String()); problem == nil && again.String() != c.String() {
			t.Fatalf("%s is written as %s", c, again)
		} else if problem != nil && len(c.String()) <= maxAblyCapabilityBytes {
			t.Fatalf("what was written cannot be read: %v", problem)
		}
		if len(listed) == 0 {
			return
		}
		for _, other := range []*ablyCapability{c, everything} {
			both, problem := c.intersect(other)
			if problem != nil && problem.Code != 40000 {
				t.Fatalf("together with %s: %v", other, problem)
			}
			if problem == nil && both.ops(channel) != c.ops(channel) {
				t.Fatalf("together with %s it allows %v on %q, want %v", other, both.ops(channel).names(), channel, c.ops(channel).names())
			}
		}
	})
}
