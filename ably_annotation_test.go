package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"letshare/ably"
)

// annotation is one of a type, a name ("" for none) and a client ("" for nobody).
func annotation(kind, name, clientID string) ably.Annotation {
	a := ably.Annotation{Type: kind, ClientID: clientID}
	if name != "" {
		a.Name = ably.Some(name)
	}
	return a
}

func takenBack(a ably.Annotation) ably.Annotation {
	a.Action = ably.AnnotationDelete
	return a
}

// The shapes are those that the SDK's types declare.
func TestSummariesHaveTheShapesOfTheSDK(t *testing.T) {
	t.Parallel()
	var s annotationSummary
	if got := string(s.json()); got != `{"summary":{}}` {
		t.Errorf("without annotations: %s", got)
	}
	three := annotation("vote:multiple.v1", "a", "ann")
	three.Count = ably.Some(int64(3))
	for _, a := range []ably.Annotation{
		annotation("seen:total.v1", "", ""), annotation("seen:total.v1", "any", "ann"), takenBack(annotation("seen:total.v1", "", "")),
		annotation("like:flag.v1", "", "ann"), annotation("like:flag.v1", "other", "ann"), annotation("like:flag.v1", "", "ben"),
		annotation("emoji:distinct.v1", "👍", "ann"), annotation("emoji:distinct.v1", "😕", "ann"), annotation("emoji:distinct.v1", "👍", "ben"),
		takenBack(annotation("emoji:distinct.v1", "👍", "ann")), takenBack(annotation("emoji:distinct.v1", "none", "ann")),
		annotation("mood:unique.v1", "good", "ann"), annotation("mood:unique.v1", "bad", "ann"), annotation("mood:unique.v1", "bad", "ben"),
		three, annotation("vote:multiple.v1", "a", "ann"), annotation("vote:multiple.v1", "a", ""), annotation("vote:multiple.v1", "b", "ben"),
		takenBack(annotation("vote:multiple.v1", "b", "ben")),
		annotation("comment", "", "ann"), // counted nowhere
	} {
		s.apply(&a)
	}
	want := `{"summary":{` +
		`"emoji:distinct.v1":{"👍":{"total":1,"clientIds":["ben"],"clipped":false},"😕":{"total":1,"clientIds":["ann"],"clipped":false}},` +
		`"like:flag.v1":{"total":2,"clientIds":["ann","ben"],"clipped":false},` +
		`"mood:unique.v1":{"bad":{"total":2,"clientIds":["ann","ben"],"clipped":false}},` +
		`"seen:total.v1":{"total":1},` +
		`"vote:multiple.v1":{"a":{"total":5,"clientIds":{"ann":4},"totalUnidentified":1,"clipped":false,"totalClientIds":1}}}}`
	if got := string(s.json()); got != want {
		t.Errorf("the summary is\n%s, want\n%s", got, want)
	}
}

// A summary that would be too long names some of the clients only, and says so; what it counts stays right.
func TestALargeSummaryIsClipped(t *testing.T) {
	t.Parallel()
	var s annotationSummary
	const clients = 3000
	for i := range clients {
		a := annotation("like:flag.v1", "", fmt.Sprint("client-with-a-name-", i))
		s.apply(&a)
	}
	var body struct {
		Summary map[string]struct {
			Total     int
			ClientIDs []string
			Clipped   bool
		}
	}
	text := s.json()
	if err := json.Unmarshal(text, &body); err != nil {
		t.Fatal(err)
	}
	like := body.Summary["like:flag.v1"]
	if like.Total != clients || !like.Clipped || len(like.ClientIDs) == 0 || len(like.ClientIDs) >= clients || len(text) > 2*maxSummaryClientBytes {
		t.Errorf("%d bytes: total %d, %d listed, clipped %t", len(text), like.Total, len(like.ClientIDs), like.Clipped)
	}
}

// naiveSummary counts a list of annotations from its beginning, in the plainest way.
func naiveSummary(list []ably.Annotation) map[string]any {
	totals := map[string]int64{}                      // by type
	parts := map[string]map[string]map[string]int64{} // by type, name and client
	for _, a := range list {
		method, _ := annotationMethod(a.Type)
		name := a.Name.V
		if method == annotationFlag {
			name = ""
		}
		if parts[a.Type] == nil {
			parts[a.Type] = map[string]map[string]int64{}
		}
		if parts[a.Type][name] == nil {
			parts[a.Type][name] = map[string]int64{}
		}
		names := parts[a.Type]
		switch {
		case method == annotationTotal && a.Action == ably.AnnotationDelete:
			totals[a.Type] = max(0, totals[a.Type]-1)
		case method == annotationTotal:
			totals[a.Type]++
		case a.Action == ably.AnnotationDelete:
			delete(names[name], a.ClientID)
		case method == annotationMultiple && a.Count.OK:
			names[name][a.ClientID] += a.Count.V
		case method == annotationMultiple:
			names[name][a.ClientID]++
		default:
			if method == annotationUnique {
				for _, clients := range names {
					delete(clients, a.ClientID)
				}
			}
			names[name][a.ClientID] = 1
		}
	}
	summary := map[string]any{}
	for kind, total := range totals {
		if total > 0 {
			summary[kind] = map[string]any{"total": float64(total)}
		}
	}
	for kind, names := range parts {
		of := map[string]any{}
		for name, clients := range names {
			if len(clients) > 0 {
				of[name] = naiveCount(kind, clients)
			}
		}
		if flag, ok := of[""]; ok && strings.HasSuffix(kind, annotationFlag) {
			summary[kind] = flag
		} else if len(of) > 0 {
			summary[kind] = of
		}
	}
	return summary
}

func naiveCount(kind string, clients map[string]int64) map[string]any {
	total := int64(0)
	ids, shares := []any{}, map[string]any{}
	for id, share := range clients {
		if total += share; id != "" {
			ids = append(ids, id)
			shares[id] = float64(share)
		}
	}
	slices.SortFunc(ids, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
	if strings.HasSuffix(kind, annotationMultiple) {
		return map[string]any{"total": float64(total), "clientIds": shares, "totalUnidentified": float64(clients[""]), "clipped": false, "totalClientIds": float64(len(shares))}
	}
	return map[string]any{"total": float64(total), "clientIds": ids, "clipped": false}
}

// sortClients brings the lists of clients of a summary into the order of the text.
func sortClients(value any) {
	object, _ := value.(map[string]any)
	for key, inner := range object {
		if ids, ok := inner.([]any); ok && key == "clientIds" {
			slices.SortFunc(ids, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
		}
		sortClients(inner)
	}
}

// However annotations come and go, the summary is what counting them all from the beginning comes to; and when all are taken
// back, nothing of it is left.
func TestSummariesAgainstANaiveRecount(t *testing.T) {
	t.Parallel()
	kinds := []string{"t:total.v1", "f:flag.v1", "d:distinct.v1", "u:unique.v1", "m:multiple.v1", "comment"}
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 7))
		var s annotationSummary
		var list []ably.Annotation
		for range random.IntN(120) {
			a := annotation(kinds[random.IntN(len(kinds))], string(rune('a'+random.IntN(4))), []string{"ann", "ben", "cleo", ""}[random.IntN(4)])
			method, _ := annotationMethod(a.Type)
			if random.IntN(3) == 0 {
				a.Action = ably.AnnotationDelete
			}
			if random.IntN(3) == 0 {
				a.Count = ably.Some(int64(1 + random.IntN(5)))
			}
			if checkAnnotation(&a) != nil {
				continue // refused
			}
			s.apply(&a)
			if method != "" {
				list = append(list, a)
			}
		}
		var got struct{ Summary map[string]any }
		if err := json.Unmarshal(s.json(), &got); err != nil {
			t.Fatal(err)
		}
		sortClients(got.Summary)
		if want := naiveSummary(list); !reflect.DeepEqual(got.Summary, want) {
			t.Fatalf("seed %d: the summary is\n%v, want\n%v", seed, got.Summary, want)
		}
		for _, a := range list {
			if a = takenBack(a); a.ClientID != "" || a.Type == "t:total.v1" {
				s.apply(&a)
			}
		}
		if s.clients != 0 || s.names != len(s.kinds) && len(s.kinds) > 1 || len(s.kinds) == 0 && s.size != 0 {
			t.Fatalf("seed %d: when all is taken back, %d clients, %d names, %d bytes are left", seed, s.clients, s.names, s.size)
		}
	}
}

func TestWhatIsNoAnnotationIsRefused(t *testing.T) {
	t.Parallel()
	counted := func(a ably.Annotation, n int64) ably.Annotation {
		a.Count = ably.Some(n)
		return a
	}
	for _, c := range []struct {
		why  string
		a    ably.Annotation
		want *ably.ErrorInfo
	}{
		{"without a type", annotation("", "a", "ann"), errAblyAnnotation},
		{"a type without a label", annotation(":flag.v1", "a", "ann"), errAblyAnnotation},
		{"an unknown way of counting", annotation("x:median.v1", "a", "ann"), errAblyAnnotation},
		{"two colons", annotation("x:y:flag.v1", "a", "ann"), errAblyAnnotation},
		{"a long type", annotation(strings.Repeat("x", 257), "a", "ann"), errAblyAnnotation},
		{"a long name", annotation("x:distinct.v1", strings.Repeat("x", 257), "ann"), errAblyAnnotation},
		{"no name", annotation("x:unique.v1", "", "ann"), errAblyAnnotation},
		{"a count of nothing", counted(annotation("x:multiple.v1", "a", "ann"), 0), errAblyAnnotation},
		{"a count below", counted(annotation("x:multiple.v1", "a", "ann"), -1), errAblyAnnotation},
		{"a count beyond", counted(annotation("x:multiple.v1", "a", "ann"), maxAnnotationCount+1), errAblyAnnotation},
		{"an unknown action", ably.Annotation{Type: "x", Action: 2}, errAblyAnnotation},
		{"a flag of nobody", annotation("x:flag.v1", "", ""), errAblyUnidentified},
		{"a distinct of nobody", annotation("x:distinct.v1", "a", ""), errAblyUnidentified},
		{"a unique of nobody", annotation("x:unique.v1", "a", ""), errAblyUnidentified},
		{"nobody takes back what is nobody's", takenBack(annotation("x:multiple.v1", "a", "")), errAblyUnidentified},
		{"a total of nobody", annotation("x:total.v1", "", ""), nil},
		{"a multiple of nobody", annotation("x:multiple.v1", "a", ""), nil},
		{"a comment of nobody", annotation("comment", "", ""), nil},
	} {
		if got := checkAnnotation(&c.a); got != c.want {
			t.Errorf("%s: %v, want %v", c.why, got, c.want)
		}
	}
}

// annotate sends annotations of a message and wants the ACK next.
func (c *ablyClient) annotate(t testing.TB, channel, serial string, list ...ably.Annotation) {
	t.Helper()
	if m := c.annotates(t, channel, serial, list...); m.Action != ably.ActionAck || len(m.Results) != 1 || len(m.Results[0].Serials) != len(list) {
		t.Fatalf("%s annotates and gets %s", c.name, m.Append(nil, ably.JSON))
	}
}

// annotates sends annotations of a message and returns what comes next.
func (c *ablyClient) annotates(t testing.TB, channel, serial string, list ...ably.Annotation) ably.ProtocolMessage {
	t.Helper()
	for i := range list {
		list[i].MessageSerial = serial
	}
	c.say(t, ably.ProtocolMessage{Action: ably.ActionAnnotation, Channel: ably.Some(channel), MsgSerial: ably.Some(c.serial), Annotations: list})
	c.serial++
	return c.next(t)
}

// annotationModes attaches with everything that annotations need.
func annotationModes(m *ably.ProtocolMessage) {
	m.Flags |= ably.ModePublish | ably.ModeSubscribe | ably.ModeAnnotationPublish | ably.ModeAnnotationSubscribe
}

// Those who asked for annotations hear each; every subscriber hears what they come to; and who was away hears of each annotation
// that it missed, and of the newest summary alone.
func TestAnnotationsAndSummariesReachThoseWhoWantThem(t *testing.T) {
	t.Parallel()
	s := startServer(t, withMutable)
	ann, ben := s.ably(t, "ann", "clientId=ann"), s.ably(t, "ben", "clientId=ben", "format=msgpack")
	ben.attach(t, "notes:a", annotationModes)
	cleo := s.ably(t, "cleo")
	cleo.attach(t, "notes:a")
	serial := ann.publish(t, "notes:a", ablyText("hello", "world"))[0]
	ben.hears(t, "notes:a", "hello world")
	seen := cleo.hears(t, "notes:a", "hello world").ChannelSerial

	ann.annotate(t, "notes:a", serial, annotation("emoji:distinct.v1", "👍", ""))
	heard := ben.wantAction(t, ably.ActionAnnotation, "notes:a")
	if a := heard.Annotations[0]; a.ClientID != "ann" || a.MessageSerial != serial || a.Serial <= serial || a.ID != ann.id+":1:0" || a.Name.V != "👍" {
		t.Errorf("ben hears %s", heard.Append(nil, ably.JSON))
	}
	const one = `{"summary":{"emoji:distinct.v1":{"👍":{"total":1,"clientIds":["ann"],"clipped":false}}}}`
	for _, c := range []*ablyClient{ben, cleo} {
		m := c.hears(t, "notes:a", "hello")
		if got := m.Messages[0]; got.Action != ably.MessageSummary || got.Serial != serial || string(got.Annotations) != one || m.ChannelSerial <= heard.ChannelSerial {
			t.Errorf("%s is told %s", c.name, m.Append(nil, ably.JSON))
		}
	}
	dora := s.ably(t, "dora", "clientId=dora")
	dora.annotate(t, "notes:a", serial, annotation("emoji:distinct.v1", "👍", "dora"))
	dora.annotate(t, "notes:a", serial, annotation("comment", "", ""))
	cleo.hears(t, "notes:a", "hello") // a comment is counted nowhere
	cleo.hearsNothing(t, "notes:a")

	back := s.ably(t, "back")
	back.attach(t, "notes:a", func(m *ably.ProtocolMessage) { annotationModes(m); m.ChannelSerial = seen })
	for range 2 {
		back.wantAction(t, ably.ActionAnnotation, "notes:a")
	}
	if m := back.hears(t, "notes:a", "hello"); !strings.Contains(string(m.Messages[0].Annotations), `"clientIds":["ann","dora"]`) {
		t.Errorf("back is told %s", m.Append(nil, ably.JSON))
	}
	if m := back.wantAction(t, ably.ActionAnnotation, "notes:a"); m.Annotations[0].Type != "comment" {
		t.Errorf("back hears %s", m.Append(nil, ably.JSON))
	}
	back.hearsNothing(t)
	page := s.rest(t, "GET", "/channels/notes:a/messages", "")
	if text := page.value(t); !strings.Contains(text, `"total":2`) || strings.Count(text, serial+`","version"`) != 1 {
		t.Errorf("history is %s", text)
	}
	wantHubConsistent(t, s)
}

func TestAnnotationsThatAreRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t, withMutable)
	ann, nobody := s.ably(t, "ann", "clientId=ann"), s.ably(t, "nobody")
	serial := ann.publish(t, "notes:a", ablyText("hello", ""))[0]
	other := ann.publish(t, "other", ablyText("hello", ""))[0]
	flag := annotation("x:flag.v1", "", "")
	poor := s.ably(t, "poor", "key="+testAblyPoorKey)
	silent := s.ably(t, "silent")
	silent.attach(t, "notes:a", func(m *ably.ProtocolMessage) { m.Flags = ably.ModeSubscribe })
	for _, c := range []struct {
		who             *ablyClient
		code            int
		channel, serial string
		list            []ably.Annotation
	}{
		{ann, 93002, "other", other, []ably.Annotation{flag}},
		{ann, 40400, "notes:a", strings.Replace(serial, "@", "9@", 1), []ably.Annotation{flag}},
		{ann, 40400, "notes:a", "nonsense", []ably.Annotation{flag}},
		{ann, 40400, "notes:nobody", serial, []ably.Annotation{flag}},
		{ann, 40003, "notes:a", "", []ably.Annotation{flag}},
		{ann, 40000, "notes:a", serial, nil},
		{ann, 40012, "notes:a", serial, []ably.Annotation{annotation("x:flag.v1", "", "ben")}},
		{ann, 40009, "notes:a", serial, []ably.Annotation{{Type: "x", Data: ably.Data{Kind: ably.DataText, Bytes: make([]byte, defaultAblyMessageBytes)}}}},
		{nobody, 40000, "notes:a", serial, []ably.Annotation{flag}},
		{poor, 40160, "notes:a", serial, []ably.Annotation{flag}},
		{silent, 40165, "notes:a", serial, []ably.Annotation{flag}},
	} {
		if m := c.who.annotates(t, c.channel, c.serial, slices.Clone(c.list)...); m.Action != ably.ActionNack || m.Error.Code != c.code || m.Count != 1 {
			t.Errorf("%s on %s gets %s, want %d", c.who.name, c.channel, m.Append(nil, ably.JSON), c.code)
		}
	}
	// Who asks for annotations where there are none is told.
	ann.say(t, ably.ProtocolMessage{Action: ably.ActionAttach, Channel: ably.Some("other"), Flags: ably.ModeAnnotationSubscribe})
	if m := ann.wantAction(t, ably.ActionError, "other"); m.Error.Code != 93002 {
		t.Errorf("the attach is answered %s", m.Append(nil, ably.JSON))
	}
}

// A message has so many annotations and no more; what is there can still be taken back.
func TestAnnotationsOfOneMessageAreBounded(t *testing.T) {
	t.Parallel()
	s := startServer(t, withMutable)
	ann := s.ably(t, "ann", "clientId=*")
	serial := ann.publish(t, "notes:a", ablyText("hello", ""))[0]
	var list []ably.Annotation
	for i := range maxAnnotationNames {
		list = append(list, annotation("x:distinct.v1", fmt.Sprint(i), "ann"))
	}
	ann.annotate(t, "notes:a", serial, list...)
	if m := ann.annotates(t, "notes:a", serial, annotation("x:distinct.v1", "more", "ann")); m.Action != ably.ActionNack {
		t.Errorf("one name more gets %s", m.Append(nil, ably.JSON))
	}
	ann.annotate(t, "notes:a", serial, annotation("x:distinct.v1", "1", "ben"))
	ann.annotate(t, "notes:a", serial, takenBack(annotation("x:distinct.v1", "0", "ann")))
	ann.annotate(t, "notes:a", serial, annotation("x:distinct.v1", "more", "ann"))
	wantHubConsistent(t, s)
}

// Over REST: publish, take back, list in pages; in both formats, and the same again is not counted again.
func TestAnnotationsOverREST(t *testing.T) {
	t.Parallel()
	s := startServer(t, withMutable)
	ann := s.ably(t, "ann")
	serial := ann.publish(t, "notes:a", ablyText("hello", ""))[0]
	at := "/channels/notes:a/messages/" + serial + "/annotations"
	as := "X-Ably-ClientId: YW5u" // ann
	for range 2 {
		if a := s.rest(t, "POST", at, `[{"id":"own","type":"vote:multiple.v1","name":"a","count":2,"data":{"k":1}}]`, as); a.status != 201 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	s.rest(t, "POST", at, `{"type":"vote:multiple.v1","name":"b"}`)
	s.rest(t, "POST", at, `{"type":"vote:multiple.v1","name":"a","action":1}`, as)
	first := s.rest(t, "GET", at+"?limit=2", "", withMsgpack)
	list, err := ably.DecodeAnnotations(ably.Msgpack, first.body)
	if err != nil || len(list) != 2 || list[0].ClientID != "ann" || list[0].Count != ably.Some(int64(2)) || list[1].Name.V != "b" {
		t.Fatalf("%v %s", err, first.value(t))
	}
	next := s.rest(t, "GET", at+"?"+first.next(t), "")
	if list, err := ably.DecodeAnnotations(ably.JSON, next.body); err != nil || len(list) != 1 || list[0].Action != ably.AnnotationDelete || next.next(t) != "" {
		t.Errorf("%v %s", err, next.value(t))
	}
	s.rest(t, "PATCH", "/channels/notes:a/messages/"+serial, `{"data":"changed"}`) // which keeps the summary
	message := s.rest(t, "GET", "/channels/notes:a/messages/"+serial, "").value(t)
	if !strings.Contains(message, `{"vote:multiple.v1":{"b":{"total":1,"clientIds":{},"totalUnidentified":1,"clipped":false,"totalClientIds":0}}}`) {
		t.Errorf("the message is %s", message)
	}
	for path, code := range map[string]int{at: 40160, "/channels/other/messages/" + serial + "/annotations": 93002} {
		if a := s.rest(t, "GET", path, "", withRestKey(testAblyPoorKey)); !strings.Contains(string(a.body), fmt.Sprint(code)) {
			t.Errorf("%s: %s, want %d", path, a.body, code)
		}
	}
}
