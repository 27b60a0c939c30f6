package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"letshare/ably"
)

// withMutable makes the messages of the namespace "notes" mutable.
func withMutable(c *Config) {
	withAblyKeys(c)
	c.Ably.Namespaces = []AblyNamespace{{ID: "notes", MutableMessages: true}}
	c.Ably.MessagesPerSecond = 0
}

// changed is a change of a message that says why.
func changed(action uint8, serial, data string) ably.Message {
	m := ably.Message{Action: action, Serial: serial, Version: &ably.Version{Description: "why", Metadata: []byte(`{"k":"v"}`)}}
	if data != "" {
		m.Data = ably.Data{Kind: ably.DataText, Bytes: []byte(data)}
	}
	return m
}

// An update, a delete and an append are heard as what they are; whoever looks later finds the message as it has become, in its
// place; and who was away gets what it missed, each change once.
func TestMessagesAreChanged(t *testing.T) {
	t.Parallel()
	s := startServer(t, withMutable)
	ann, ben := s.ably(t, "ann", "clientId=ann"), s.ably(t, "ben", "format=msgpack")
	seen := ben.attach(t, "notes:a").ChannelSerial
	serial := ann.publish(t, "notes:a", ablyText("hello", "one"))[0]
	ann.publish(t, "notes:a", ablyText("hello", "two"))
	ben.hears(t, "notes:a", "hello one")
	ben.hears(t, "notes:a", "hello two")

	version := ann.publish(t, "notes:a", changed(ably.MessageUpdate, serial, "uno"))[0]
	m := ben.hears(t, "notes:a", "hello uno").Messages[0]
	if m.Action != ably.MessageUpdate || m.Serial != serial || m.ClientID != "ann" || m.Version.Serial != version || version <= serial ||
		m.Version.ClientID != "ann" || m.Version.Description != "why" || string(m.Version.Metadata) != `{"k":"v"}` || m.Timestamp == 0 {
		t.Errorf("ben hears %+v, version %+v", m, m.Version)
	}
	ann.publish(t, "notes:a", changed(ably.MessageAppend, serial, "!"))
	if m := ben.hears(t, "notes:a", "hello !").Messages[0]; m.Action != ably.MessageAppend || m.Serial != serial {
		t.Errorf("ben hears %+v", m)
	}
	ann.publish(t, "notes:a", changed(ably.MessageAppend, serial, "!"))
	ben.hears(t, "notes:a", "hello !")

	if got := s.all(t, "/channels/notes:a/messages", "direction=forwards"); !slices.Equal(got, []string{"hello uno!!", "hello two"}) {
		t.Errorf("history is %q", got)
	}
	back := s.ably(t, "back")
	back.attach(t, "notes:a", func(m *ably.ProtocolMessage) { m.ChannelSerial = seen })
	for _, want := range []string{"hello one", "hello two", "hello uno", "hello !", "hello !"} {
		back.hears(t, "notes:a", want)
	}
	late := s.ably(t, "late")
	late.attach(t, "notes:a", func(m *ably.ProtocolMessage) { m.Params = map[string]string{"rewind": "9"} })
	if m := late.hears(t, "notes:a", "hello uno!!").Messages[0]; m.Action != ably.MessageUpdate || m.Serial != serial {
		t.Errorf("late hears %+v", m)
	}
	seen = late.hears(t, "notes:a", "hello two").ChannelSerial
	late.hearsNothing(t, "notes:a")
	later := s.ably(t, "later") // resumes where the rewind has left off: the changes are in it
	later.attach(t, "notes:a", func(m *ably.ProtocolMessage) { m.ChannelSerial = seen })
	later.hearsNothing(t, "notes:a")

	ann.publish(t, "notes:a", changed(ably.MessageDelete, serial, ""))
	if m := ben.hears(t, "notes:a", "hello uno!!").Messages[0]; m.Action != ably.MessageDelete {
		t.Errorf("ben hears %+v", m)
	}
	page := s.rest(t, "GET", "/channels/notes:a/messages/"+serial+"/versions?limit=3", "")
	more := s.rest(t, "GET", "/channels/notes:a/messages/"+serial+"/versions?"+page.next(t), "")
	if got := append(page.messages(t), more.messages(t)...); !slices.Equal(got, []string{"hello one", "hello uno", "hello !", "hello !", "hello uno!!"}) {
		t.Errorf("the versions are %q", got)
	}
	wantHubConsistent(t, s)
}

func TestChangesThatAreRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t, withMutable, func(c *Config) {
		c.Ably.Keys = append(c.Ably.Keys,
			AblyKey{Name: "app.own", Secret: "secret-of-the-key-for-own", Capability: map[string][]string{"notes:*": {"publish", "message-update-own"}}})
	})
	ann, own, nobody := s.ably(t, "ann", "clientId=ann"), s.ably(t, "own", "key=app.own:secret-of-the-key-for-own", "clientId=ben"), s.ably(t, "nobody", "key=app.own:secret-of-the-key-for-own")
	poor := s.ably(t, "poor", "key="+testAblyPoorKey)
	anns := ann.publish(t, "notes:a", ablyText("hello", "of ann"))[0]
	bens := own.publish(t, "notes:a", ablyText("hello", "of ben"))[0]
	nobodys := nobody.publish(t, "notes:a", ablyText("hello", ""))[0]
	object := own.publish(t, "notes:a", ablyObject("object", `{}`))[0]
	elsewhere := ann.publish(t, "other", ablyText("hello", ""))[0]
	long := strings.Repeat("x", defaultAblyMessageBytes-10)
	update := func(serial string) ably.Message { return changed(ably.MessageUpdate, serial, "new") }
	summary, claimed := update(anns), update(anns)
	summary.Action = ably.MessageSummary
	claimed.Version.ClientID = "ben"
	for _, c := range []struct {
		who     *ablyClient
		code    int
		channel string
		list    []ably.Message
	}{
		{ann, 93002, "other", []ably.Message{update(elsewhere)}},
		{ann, 40003, "notes:a", []ably.Message{update("")}},
		{ann, 40400, "notes:a", []ably.Message{update(elsewhere)}},
		{ann, 40400, "notes:a", []ably.Message{update("1-99@x:000")}},
		{ann, 40400, "notes:empty", []ably.Message{update(anns)}},
		{ann, 40000, "notes:a", []ably.Message{update(anns), update(anns)}},
		{ann, 40020, "notes:a", []ably.Message{ablyText("hello", ""), update(anns)}},
		{ann, 40020, "notes:a", []ably.Message{summary}},
		{ann, 40012, "notes:a", []ably.Message{claimed}},
		{ann, 40009, "notes:a", []ably.Message{changed(ably.MessageAppend, anns, long)}},
		{ann, 40000, "notes:a", []ably.Message{changed(ably.MessageAppend, object, "text")}},
		{own, 40160, "notes:a", []ably.Message{update(anns)}},
		{own, 40160, "notes:a", []ably.Message{update(nobodys)}},
		{own, 40160, "notes:a", []ably.Message{changed(ably.MessageDelete, bens, "")}},
		{nobody, 40160, "notes:a", []ably.Message{update(nobodys)}},
		{poor, 40160, "notes:a", []ably.Message{update(anns)}},
		{ann, 40010, ":", []ably.Message{update(anns)}},
	} {
		c.who.refused(t, c.code, c.channel, c.list...)
	}
	own.publish(t, "notes:a", update(bens))
	own.publish(t, "notes:a", changed(ably.MessageAppend, bens, "er"))
	if got := s.all(t, "/channels/notes:a/messages", "direction=forwards"); !slices.Equal(got, []string{"hello of ann", "hello newer", "hello", "object {}"}) {
		t.Errorf("history is %q", got)
	}
}

// A change that is sent again, because its ACK was lost or under an id of the client's own, is made once. An id that the client
// has only received with the message is none of its own.
func TestAChangeIsMadeOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t, withMutable)
	ann := s.ably(t, "ann")
	serial := ann.publish(t, "notes:a", ably.Message{ID: "mine", Data: ably.Data{Kind: ably.DataText, Bytes: []byte("a")}})[0]
	more := changed(ably.MessageAppend, serial, "b")
	first := ann.publish(t, "notes:a", more)
	ann.serial--
	if again := ann.publish(t, "notes:a", more); !slices.Equal(first, again) {
		t.Errorf("sent again it has the version %q, not %q", again, first)
	}
	more.ID = "mine" // the message's: the client has changed what it has received
	ann.publish(t, "notes:a", more)
	ann.publish(t, "notes:a", more)
	more.ID = ann.id + ":1:0" // the first change's: it has received that, too
	ann.publish(t, "notes:a", more)
	more.ID = "once"
	if one, two := ann.publish(t, "notes:a", more), ann.publish(t, "notes:a", more); !slices.Equal(one, two) {
		t.Errorf("under one id it has the versions %q and %q", one, two)
	}
	for range 2 {
		a := s.rest(t, "PATCH", "/channels/notes:a/messages/"+serial, `{"id":"rest","action":5,"data":"c"}`)
		if a.status != 200 || !strings.Contains(string(a.body), `{"versionSerial":"`) {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if got := s.rest(t, "GET", "/channels/notes:a/messages/"+serial, "").value(t); !strings.Contains(got, `"data":"abbbbbc"`) {
		t.Errorf("the message is %s", got)
	}
	if a := s.rest(t, "POST", "/channels/notes:a/messages", `{"id":"once","name":"a new message"}`); a.status != 201 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if got := s.all(t, "/channels/notes:a/messages", "limit=9"); !slices.Equal(got, []string{"a new message", "abbbbbc"}) {
		t.Errorf("history is %q", got)
	}
	wantHubConsistent(t, s)
}

func TestChangesOverREST(t *testing.T) {
	t.Parallel()
	s := startServer(t, withMutable)
	ann := s.ably(t, "ann")
	serial := ann.publish(t, "notes:a", ably.Message{Name: ably.Some("pic"), Data: ably.Data{Kind: ably.DataBinary, Bytes: []byte{0, 255}}})[0]
	at := "/channels/notes:a/messages/" + strings.Replace(serial, "@", "%40", 1)
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"PATCH", at, `{"name":"photo","version":{"clientId":"x","description":"d"}}`, 200, "versionSerial"},
		{"GET", at, "", 200, `"name":"photo","data":"AP8=","encoding":"base64"`},
		{"PATCH", at, `{"action":5,"data":"AQ==","encoding":"base64"}`, 200, "versionSerial"},
		{"GET", at, "", 200, `"data":"AP8B"`},
		{"PATCH", at, `{"serial":"another","name":"x"}`, 400, "40003"},
		{"PATCH", at, `{"action":4}`, 400, "40020"},
		{"PATCH", at, `{"action":5,"data":"text"}`, 400, "40000"},
		{"PATCH", at, `[]`, 400, "40013"},
		{"PATCH", at, `nonsense`, 400, "40013"},
		{"PATCH", "/channels/other/messages/" + serial, `{"name":"x"}`, 400, "93002"},
		{"GET", "/channels/other/messages/" + serial, "", 400, "93002"},
		{"GET", "/channels/other/messages/" + serial + "/versions", "", 400, "93002"},
		{"GET", "/channels/notes:a/messages/nonsense", "", 404, "40400"},
		{"GET", "/channels/notes:b/messages/" + serial + "/versions", "", 404, "40400"},
		{"DELETE", at, "", 404, "40400"},
	} {
		if a := s.rest(t, c.method, c.path, c.body); a.status != c.status || !strings.Contains(string(a.body), c.want) {
			t.Errorf("%s %s %s: %d %s, want %d %s", c.method, c.path, c.body, a.status, a.body, c.status, c.want)
		}
	}
}

// LetShare's protocol has no word for changes: they are counted where somebody listens to the name.
func TestLetShareMembersAreSparedChanges(t *testing.T) {
	t.Parallel()
	s := startServer(t, withMutable, func(c *Config) { c.Ably.Namespaces[0].ID = "notes" })
	ann, ben := s.dial(t, "ann"), s.ably(t, "ben")
	ann.subscribe(t, "notes", "signal:all")
	serial := ben.publish(t, "notes", ablyObject("signal:all", `{"n":1}`))[0]
	ann.want(t, `{"event":"signal:all","data":{"n":1}}`)
	ben.publish(t, "notes", changed(ably.MessageDelete, serial, ""))
	ben.annotate(t, "notes", serial, annotation("seen:total.v1", "", ""))
	ann.wantNothing(t)
	if got := s.server.hub.totals().unspoken; got != 1 {
		t.Errorf("%d deliveries are counted as not representable, want 1", got)
	}
}

// wantInJournal waits until the journal's files hold a text.
func wantInJournal(t testing.TB, folder, text string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		files, _ := filepath.Glob(filepath.Join(folder, "*"+journalSuffix))
		for _, file := range files {
			if held, _ := os.ReadFile(file); strings.Contains(string(held), text) {
				return
			}
		}
	}
	t.Fatalf("the journal does not hold %s", text)
}

// Changed messages and annotations of a persisted namespace outlive the process, and go on where they were.
func TestTheJournalHoldsChangesAndAnnotations(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	mutable := func(c *Config) { c.Ably.Namespaces[0].MutableMessages = true }
	for _, end := range []string{"a clean end", "a kill"} {
		t.Run(end, func(t *testing.T) {
			s := startServer(t, withJournal(folder), mutable)
			ann := s.ably(t, "ann", "clientId=ann")
			room := "kept:" + strings.ReplaceAll(end, " ", "")
			serial := ann.publish(t, room, ablyText("hello", "a"))[0]
			ear := s.ably(t, "ear")
			seen := ear.attach(t, room).ChannelSerial
			ann.annotate(t, room, serial, annotation("like:flag.v1", "", ""))
			ann.publish(t, room, changed(ably.MessageAppend, serial, "b"))
			after := folder
			if end == "a kill" {
				wantInJournal(t, folder, `"data":"b"`)
				after = copyFolder(t, folder)
			}
			ann.close()
			ear.close()
			s.stop()

			s = startServer(t, withJournal(after), mutable)
			ann, ear = s.ably(t, "ann", "clientId=ben"), s.ably(t, "ear")
			if end == "a clean end" {
				m := ear.attach(t, room, func(m *ably.ProtocolMessage) { m.ChannelSerial = seen })
				if m.Flags&ably.FlagResumed == 0 {
					t.Errorf("the attach is answered %s", m.Append(nil, ably.JSON))
				}
				ear.hears(t, room, "hello") // the summary
				ear.hears(t, room, "hello b")
				ear.hearsNothing(t, room)
			}
			ann.publish(t, room, changed(ably.MessageAppend, serial, "c"))
			ann.annotate(t, room, serial, annotation("like:flag.v1", "", ""))
			got := s.rest(t, "GET", "/channels/"+room+"/messages/"+serial, "").value(t)
			if !strings.Contains(got, `"data":"abc"`) || !strings.Contains(got, `{"total":2,"clientIds":["ann","ben"],"clipped":false}`) {
				t.Errorf("after %s the message is %s", end, got)
			}
			if n := len(s.rest(t, "GET", "/channels/"+room+"/messages/"+serial+"/versions", "").messages(t)); n != 3 {
				t.Errorf("after %s there are %d versions", end, n)
			}
			wantHubConsistent(t, s)
			ann.close()
			ear.close()
			s.stop()
		})
	}
}

// Changes take no room on the pages of history, however large they are.
func TestPagesOfHistoryPassChangesOver(t *testing.T) {
	t.Parallel()
	s := startServer(t, withMutable)
	ann := s.ably(t, "ann")
	serial := ann.publish(t, "notes:a", ablyText("one", ""))[0]
	for range 2 * maxAblyPageBytes / 60_000 {
		ann.publish(t, "notes:a", changed(ably.MessageUpdate, serial, strings.Repeat("x", 60_000)))
	}
	ann.publish(t, "notes:a", changed(ably.MessageUpdate, serial, "1"))
	ann.publish(t, "notes:a", ablyText("two", "2"))
	for _, direction := range []string{"forwards", "backwards"} {
		page := s.rest(t, "GET", "/channels/notes:a/messages?direction="+direction, "")
		if got := page.messages(t); len(got) != 2 || page.next(t) != "" {
			t.Errorf("%s the page is %q, and the next %q", direction, got, page.next(t))
		}
	}
}

// When a message is no longer kept, nothing of what became of it is: it cannot be changed, and its summary is told to nobody.
func TestWhatBecameOfAMessageGoesWithIt(t *testing.T) {
	t.Parallel()
	r := newAblyRoom("room", "series")
	put := func(p *publication) *publication {
		p.state = r
		r.apply(p, 1)
		r.keep(p)
		r.adopt(p)
		return p
	}
	message := put(&publication{message: ably.ProtocolMessage{Action: ably.ActionMessage, Messages: []ably.Message{ablyText("hello", "world")}}})
	said := annotation("seen:total.v1", "", "")
	said.MessageSerial = message.message.Messages[0].Serial
	annotations := put(&publication{message: ably.ProtocolMessage{Action: ably.ActionAnnotation, Annotations: []ably.Annotation{said}}})
	summary := put(r.summarised(annotations))
	ear := &attachment{granted: ably.ModeSubscribe, echo: true}
	if !ear.wants(summary) || len(summary.content().Messages) != 1 {
		t.Error("a subscriber is not told the summary")
	}
	r.forgetOldest()
	if ear.wants(summary) || message.lives != nil {
		t.Error("what became of the message is still there")
	}
	wish := &publication{message: ably.ProtocolMessage{Messages: []ably.Message{changed(ably.MessageUpdate, said.MessageSerial, "new")}}}
	if problem := r.change(wish, changeRights{any: true}, 1000, nil); problem != errAblyNoMessage {
		t.Errorf("changing it is answered %v", problem)
	}
	if r.summarised(annotations) != nil || r.adopt(annotations) != 0 {
		t.Error("further annotations find it")
	}
}

// Whatever is changed and annotated, in whatever order, and whatever is forgotten meanwhile: history is what a plain list comes
// to, and what is kept is what is charged.
func TestChangesAgainstAModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 3))
		r := newAblyRoom("room", "series")
		type entry struct{ serial, data string }
		var model []entry
		charged := 0
		put := func(p *publication) {
			p.state = r
			r.apply(p, int64(r.count))
			r.keep(p)
			charged += p.size + r.adopt(p)
		}
		for step := range 150 {
			if i := random.IntN(len(model) + 2); i >= len(model) {
				p := &publication{message: ably.ProtocolMessage{Action: ably.ActionMessage}}
				for j := range 1 + random.IntN(3) {
					p.message.Messages = append(p.message.Messages, ably.Message{ID: fmt.Sprint(step, ":", j), Data: ably.Data{Kind: ably.DataText, Bytes: []byte("a")}})
				}
				put(p)
				for _, m := range p.message.Messages {
					model = append(model, entry{m.Serial, "a"})
				}
			} else if what := random.IntN(4); what == 3 {
				a := annotation("like:flag.v1", "", string(rune('a'+random.IntN(5))))
				a.ID, a.MessageSerial = fmt.Sprint(step), model[i].serial
				put(&publication{message: ably.ProtocolMessage{Action: ably.ActionAnnotation, Annotations: []ably.Annotation{a}}})
			} else {
				action := []uint8{ably.MessageUpdate, ably.MessageDelete, ably.MessageAppend}[what]
				m := changed(action, model[i].serial, fmt.Sprint(step))
				m.ID = fmt.Sprint(step)
				p := &publication{message: ably.ProtocolMessage{Action: ably.ActionMessage, Messages: []ably.Message{m}}}
				if problem := r.change(p, changeRights{any: true}, 1<<20, nil); problem != nil {
					t.Fatalf("seed %d, step %d: %v", seed, step, problem)
				}
				put(p)
				if action != ably.MessageAppend {
					model[i].data = ""
				}
				model[i].data += fmt.Sprint(step)
			}
			if random.IntN(6) == 0 && r.kept.len() > 0 {
				p := r.kept.first()
				charged -= p.size
				model = model[p.originals():]
				r.forgetOldest()
			}
			var got []entry
			held := 0
			for _, p := range r.kept.all() {
				held += p.size
				for i := range p.originals() {
					got = append(got, entry{p.latest(i).Serial, string(p.latest(i).Data.Bytes)})
				}
			}
			if !slices.Equal(got, model) {
				t.Fatalf("seed %d, step %d: history is %q, want %q", seed, step, got, model)
			}
			if held != r.size || held != charged {
				t.Fatalf("seed %d, step %d: %d bytes are kept, %d of the room, %d charged", seed, step, held, r.size, charged)
			}
		}
	}
}
