package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"letshare/ably"
)

// restAnswer is an answer of the REST interface.
type restAnswer struct {
	status int
	header http.Header
	body   []byte
	format ably.Format
}

// rest asks the REST interface with the test's key; headers are "Name: value" lines, and replace what is there.
func (s *testServer) rest(t testing.TB, method, path, body string, headers ...string) restAnswer {
	t.Helper()
	request, err := http.NewRequest(method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(testAblyKey)))
	request.Header.Set("Content-Type", "application/json")
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ":")
		if request.Header.Del(name); value != "" {
			value = strings.TrimSpace(value)
			request.Header.Set(name, value)
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	a := restAnswer{status: response.StatusCode, header: response.Header}
	if a.body, err = io.ReadAll(response.Body); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(request.Header.Get("Accept"), "msgpack") {
		a.format = ably.Msgpack
	}
	return a
}

// withMsgpack asks for an answer in msgpack, withRestKey with another key.
const withMsgpack = "Accept: application/x-msgpack"

func withRestKey(key string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(key))
}

// value is the body as JSON text, whatever it came as.
func (a restAnswer) value(t testing.TB) string {
	t.Helper()
	value, err := ably.DecodeValue(a.format, a.body)
	if err != nil {
		t.Fatalf("the body %q: %v", a.body, err)
	}
	return string(ably.AppendValue(nil, ably.JSON, value))
}

// messages are those of a page, as "name data".
func (a restAnswer) messages(t testing.TB) (list []string) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	messages, _, err := ably.DecodeMessages(a.format, a.body)
	if err != nil {
		t.Fatalf("the page %q: %v", a.body, err)
	}
	for _, m := range messages {
		list = append(list, strings.TrimSpace(m.Name.V+" "+string(m.Data.Bytes)))
	}
	return list
}

// next is the query of the next page, "" if there is none: taken from the Link header as the SDK takes it.
func (a restAnswer) next(t testing.TB) string {
	t.Helper()
	for part := range strings.SplitSeq(a.header.Get("Link"), ",") {
		link := regexp.MustCompile(`^\s*<(.+)>;\s*rel="(\w+)"$`).FindStringSubmatch(part)
		if link == nil {
			t.Fatalf("the SDK cannot read the link %q", part)
		}
		query := regexp.MustCompile(`^\./(\w+)\?(.+)$`).FindStringSubmatch(link[1])
		if query == nil {
			t.Fatalf("the SDK cannot read the address %q", link[1])
		}
		if link[2] == "next" {
			return query[2]
		}
	}
	return ""
}

// all walks through the pages of a resource and returns their messages.
func (s *testServer) all(t testing.TB, path, query string, headers ...string) (list []string) {
	t.Helper()
	for query != "" {
		page := s.rest(t, http.MethodGet, path+"?"+query, "", headers...)
		list = append(list, page.messages(t)...)
		query = page.next(t)
	}
	return list
}

// said publishes one message by REST.
func (s *testServer) said(t testing.TB, channel, name string) {
	t.Helper()
	a := s.rest(t, http.MethodPost, "/channels/"+url.PathEscape(channel)+"/messages", fmt.Sprintf(`{"name":%q}`, name))
	if a.status != http.StatusCreated {
		t.Fatalf("publish: %d %s", a.status, a.body)
	}
}

// What REST publishes, realtime hears, in the format of each; and the other way round, in history.
func TestAblyRESTAndRealtimeAreOneChannel(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ann := s.ably(t, "ann", "format=msgpack", "clientId=ann")
	ann.attach(t, "a/b")
	answer := s.rest(t, http.MethodPost, "/channels/a%2Fb/messages", `[{"name":"x","data":"AP8=","encoding":"base64"},{"data":{"n":1e400}}]`)
	heard := ann.wantAction(t, ably.ActionMessage, "a/b")
	if answer.status != 201 || heard.Messages[0].Data.Kind != ably.DataBinary || string(heard.Messages[1].Data.Bytes) == "" || heard.ConnectionID != "" {
		t.Errorf("%d %s; ann hears %s", answer.status, answer.body, heard.Append(nil, ably.JSON))
	}
	if difference := subsetOf(t, fmt.Sprintf(`{"channel":"a/b","serials":[%q,%q]}`, heard.Messages[0].Serial, heard.Messages[1].Serial), string(answer.body)); difference != "" {
		t.Errorf("the answer %s: %s", answer.body, difference)
	}
	ann.publishEchoed(t, "a/b", ably.Message{Name: ably.Some("y"), Data: ably.Data{Kind: ably.DataBinary, Bytes: []byte{1, 255}}})
	page := s.rest(t, http.MethodGet, "/channels/a%2Fb/messages?limit=1", "")
	if difference := subsetOf(t, fmt.Sprintf(`{"name":"y","data":"Af8=","encoding":"base64","clientId":"ann","connectionId":%q,"id":"%s:0:0","action":0}`, ann.id, ann.id),
		strings.Trim(string(page.body), "[]")); difference != "" {
		t.Errorf("history is %s: %s", page.body, difference)
	}
	for _, key := range []string{"timestamp", "serial", "version"} {
		if !strings.Contains(string(page.body), `"`+key+`":`) {
			t.Errorf("history lacks %s: %s", key, page.body)
		}
	}
	binary := s.rest(t, http.MethodGet, "/channels/a%2Fb/messages?limit=1", "", withMsgpack)
	if list, _, err := ably.DecodeMessages(ably.Msgpack, binary.body); err != nil || !bytes.Equal(list[0].Data.Bytes, []byte{1, 255}) || list[0].Encoding != "" ||
		binary.header.Get("Content-Type") != "application/x-msgpack" {
		t.Errorf("history in msgpack is %q %v", binary.body, err)
	}
	if page.header.Get("Content-Type") != "application/json" {
		t.Errorf("a page of type %q", page.header.Get("Content-Type"))
	}
	wantHubConsistent(t, s)
}

// Every refusal has the shape that clients look at, in both formats: in the body, and once more in headers.
func TestAblyRESTRefusals(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys, func(c *Config) { c.Ably.MaxMessageBytes = 1000 })
	long := strings.Repeat("x", 1001)
	poor := withRestKey(testAblyPoorKey)
	for _, c := range []struct {
		method, path, body string
		header             string
		status, code       int
	}{
		{"GET", "/channels/a", "", "Authorization:", 401, 40101},
		{"GET", "/stats", "", withRestKey("app.all:wrong"), 401, 40101},
		{"GET", "/stats", "", withRestKey("none.at:all"), 401, 40101},
		{"GET", "/stats", "", "Authorization: Bearer nonsense", 401, 40143},
		{"GET", "/nothing", "", "X-Ably-Version: 4", 404, 40400},
		{"GET", "/channels/a/b/messages", "", "", 404, 40400},
		{"DELETE", "/channels/a/messages", "", "", 404, 40400},
		{"GET", "/keys/app.all/requestToken", "", "", 404, 40400},
		{"GET", "/channels/", "", "", 400, 40010},
		{"GET", "/channels/:a/messages", "", "", 400, 40010},
		{"POST", "/channels/%0A/messages", `{}`, "", 400, 40010},
		{"POST", "/channels/a/messages", `{`, "", 400, 40013},
		{"POST", "/channels/a/messages", `[]`, "", 400, 40013},
		{"POST", "/channels/a/messages", `{"data":"` + long + `"}`, "", 400, 40009},
		{"POST", "/channels/a/messages", strings.Repeat(" ", 1<<17), "", 400, 40009},
		{"POST", "/channels/a/messages", `a=b`, "Content-Type: application/x-www-form-urlencoded", 400, 40000},
		{"POST", "/channels/a/messages", `[{"id":"a"},{"id":"b"}]`, "", 400, 40031},
		{"POST", "/channels/a/messages", `{"connectionKey":"none"}`, "", 400, 40006},
		{"POST", "/channels/a/messages", `{"action":1}`, "", 400, 40020},
		{"POST", "/channels/a/messages", `{"clientId":"ben"}`, "X-Ably-ClientId: YW5u", 400, 40012},
		{"GET", "/channels/a/messages?limit=0", "", "", 400, 40000},
		{"GET", "/channels/a/messages?limit=1001", "", "", 400, 40000},
		{"GET", "/channels/a/messages?start=2&end=1", "", "", 400, 40000},
		{"GET", "/channels/a/messages?start=-1", "", "", 400, 40000},
		{"GET", "/channels/a/messages?direction=up", "", "", 400, 40000},
		{"GET", "/channels/a/messages?cursor=x", "", "", 400, 40000},
		{"GET", "/channels/a/messages?cursor=x.1.0.1", "", "", 400, 40000},
		{"GET", "/channels/a/messages?from_serial=1-1@x", "", "", 404, 80012},
		{"GET", "/channels/a/presence?limit=x", "", "", 400, 40000},
		{"GET", "/channels/a/presence?cursor=x", "", "", 400, 40000},
		{"GET", "/channels?by=size", "", "", 400, 40000},
		{"GET", "/presence", "", "", 400, 40000},
		{"POST", "/messages", `{}`, "", 400, 40000},
		{"POST", "/messages", `[]`, "", 400, 40000},
		{"POST", "/messages", `{"channels":["a"],"messages":3}`, "", 400, 40013},
		{"POST", "/messages", `{"channels":[1],"messages":{}}`, "", 400, 40000},
		// What the poor key may not: it subscribes to news, and publishes to mail:*.
		{"POST", "/channels/news/messages", `{}`, poor, 401, 40160},
		{"GET", "/channels/news/messages", "", poor, 401, 40160},
		{"GET", "/channels/news/presence/history", "", poor, 401, 40160},
		{"GET", "/channels/mail:a/presence", "", poor, 401, 40160},
		{"GET", "/channels/news", "", poor, 401, 40160},
		{"GET", "/channels", "", poor, 401, 40160},
	} {
		for _, accept := range []string{"Accept: application/json", withMsgpack} {
			headers := []string{accept}
			if c.header != "" {
				headers = append(headers, c.header)
			}
			a := s.rest(t, c.method, c.path, c.body, headers...)
			name := fmt.Sprintf("%s %s %.40s with %q", c.method, c.path, c.body, c.header)
			if a.status != c.status || a.header.Get("X-Ably-ErrorCode") != fmt.Sprint(c.code) || a.header.Get("X-Ably-ErrorMessage") == "" {
				t.Errorf("%s: %d %s", name, a.status, a.body)
				continue
			}
			if kind := a.header.Get("Content-Type"); kind != []string{"application/json", "application/x-msgpack"}[a.format] {
				if c.path != "/keys/app.all/requestToken" { // which speaks JSON alone
					t.Errorf("%s: an error of type %q", name, kind)
				}
				continue
			}
			if difference := subsetOf(t, fmt.Sprintf(`{"error":{"code":%d,"statusCode":%d}}`, c.code, c.status), a.value(t)); difference != "" {
				t.Errorf("%s: %s: %s", name, a.value(t), difference)
			}
		}
	}
	for path, want := range map[string]int{"/channels/news/presence": 200, "/stats": 401} {
		if a := s.rest(t, "GET", path, "", poor); a.status != want {
			t.Errorf("the poor key gets %d of %s", a.status, path)
		}
	}
	if a := s.rest(t, "POST", "/channels/mail:a/messages", `{}`, poor); a.status != 201 {
		t.Errorf("the poor key cannot publish where it may: %d %s", a.status, a.body)
	}
	if strings.Contains(s.log.String(), "secret-of-the-key") {
		t.Error("a secret stands in the log")
	}
	wantHubConsistent(t, s)
}

// A page of a browser's may use all of it, and sees links in the headers or in an envelope.
func TestAblyRESTForPages(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	s.said(t, "room", "one")
	s.said(t, "room", "two")
	preflight := s.rest(t, "OPTIONS", "/channels/room/messages", "", "Authorization:", "Origin: https://page.example",
		"Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,x-ably-version")
	if preflight.status != 204 || preflight.header.Get("Access-Control-Allow-Origin") != "https://page.example" ||
		!strings.Contains(preflight.header.Get("Access-Control-Allow-Headers"), "authorization") || !strings.Contains(preflight.header.Get("Access-Control-Allow-Methods"), "POST") {
		t.Errorf("the preflight is answered %d %v", preflight.status, preflight.header)
	}
	page := s.rest(t, "GET", "/channels/room/messages?limit=1", "", "Origin: https://page.example")
	if exposed := page.header.Get("Access-Control-Expose-Headers"); !strings.Contains(exposed, "Link") || !strings.Contains(exposed, "X-Ably-ErrorCode") {
		t.Errorf("exposed are %q", exposed)
	}
	wrong := s.rest(t, "GET", "/channels/room/messages?limit=0", "", withMsgpack, "Origin: https://page.example")
	if wrong.header.Get("Content-Type") != "application/json" || !strings.Contains(string(wrong.body), `"code":40000`) {
		t.Errorf("an error for a page that speaks msgpack is %s", wrong.body)
	}
	for _, format := range []string{"json", "msgpack"} {
		a := s.rest(t, "GET", "/channels/room/messages?limit=1&envelope="+format, "")
		if format == "msgpack" {
			a.format = ably.Msgpack
		}
		var envelope struct {
			StatusCode int
			Headers    struct{ Link string }
			Response   []struct{ Name string }
		}
		if err := json.Unmarshal([]byte(a.value(t)), &envelope); err != nil || envelope.StatusCode != 200 || len(envelope.Response) != 1 ||
			envelope.Response[0].Name != "two" || !strings.Contains(envelope.Headers.Link, `rel="next"`) {
			t.Errorf("the envelope is %s %v", a.value(t), err)
		}
	}
}

// A page that ably.allowed_origins does not admit is refused, and where the protocol is off there is nothing at all.
func TestAblyRESTIsClosedToOthers(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys, func(c *Config) { c.Ably.AllowedOrigins = []string{"https://ours.example"} })
	if a := s.rest(t, "GET", "/time", "", "Origin: https://other.example"); a.status != 403 || a.header.Get("X-Ably-ErrorCode") != "40300" {
		t.Errorf("another page gets %d %s", a.status, a.body)
	}
	if a := s.rest(t, "GET", "/time", "", "Origin: https://ours.example"); a.status != 200 {
		t.Errorf("our page gets %d %s", a.status, a.body)
	}
	off := startServer(t, func(c *Config) { c.Ably.Enabled = false })
	for _, path := range []string{"/time", "/channels/a/messages", "/keys/a.b/requestToken", "/stats"} {
		if a := off.rest(t, "GET", path, ""); a.status != 404 || !strings.Contains(string(a.body), `"reason":"not_found"`) {
			t.Errorf("where the protocol is off, %s is answered %d %s", path, a.status, a.body)
		}
	}
}

// The same ids again are not published again, and get the same serials: alone, in a list and in a batch.
func TestAblyRESTPublishesOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	for _, body := range []string{`{"id":"own","name":"a"}`, `[{"id":"base:0","name":"b"},{"id":"base:1","name":"c"}]`} {
		first := s.rest(t, "POST", "/channels/room/messages", body)
		again := s.rest(t, "POST", "/channels/room/messages", body)
		if first.status != 201 || string(first.body) != string(again.body) {
			t.Errorf("%s is answered %s, and again %s", body, first.body, again.body)
		}
	}
	if got := s.all(t, "/channels/room/messages", "direction=forwards"); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("published are %q", got)
	}
	if a := s.rest(t, "POST", "/channels/room/messages", `{"id":"base:0"}`); !strings.Contains(string(a.body), `"messageId":"base"`) {
		t.Errorf("the messageId is not the ids' base: %s", a.body)
	}
}

// Who names a connection's key publishes as that connection: with its clientId, and without an echo if it wants none.
func TestAblyRESTPublishesAsAConnection(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ann := s.ably(t, "ann", "clientId=ann", "echo=false")
	ann.attach(t, "room")
	ben := s.ably(t, "ben")
	ben.attach(t, "room")
	if a := s.rest(t, "POST", "/channels/room/messages", fmt.Sprintf(`{"name":"as ann","connectionKey":%q}`, ann.key)); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if m := ben.hears(t, "room", "as ann"); m.ConnectionID != ann.id || m.Messages[0].ClientID != "ann" || m.Messages[0].ConnectionKey != "" {
		t.Errorf("ben hears %s", m.Append(nil, ably.JSON))
	}
	ann.hearsNothing(t, "room")
	for code, body := range map[string]string{
		"40012": fmt.Sprintf(`{"clientId":"ben","connectionKey":%q}`, ann.key),
		"40006": fmt.Sprintf(`[{"connectionKey":%q},{}]`, ann.key),
	} {
		if a := s.rest(t, "POST", "/channels/room/messages", body); a.header.Get("X-Ably-ErrorCode") != code {
			t.Errorf("%s: %d %s, want %s", body, a.status, a.body, code)
		}
	}
	if a := s.rest(t, "POST", "/channels/mail:a/messages", fmt.Sprintf(`{"connectionKey":%q}`, ann.key), withRestKey(testAblyPoorKey)); a.header.Get("X-Ably-ErrorCode") != "40006" {
		t.Errorf("another key publishes as ann: %d %s", a.status, a.body)
	}
	if a := s.rest(t, "POST", "/channels/room/messages", fmt.Sprintf(`{"connectionKey":%q}`, ann.key), "X-Ably-ClientId: YmVu"); a.header.Get("X-Ably-ErrorCode") != "40012" {
		t.Errorf("ben publishes as ann: %d %s", a.status, a.body)
	}
}

// In a batch, what one channel refuses does not keep the others from having it.
func TestAblyRESTBatches(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	poor := withRestKey(testAblyPoorKey)
	batch := `{"channels":["mail:a","news","mail:b"],"messages":[{"name":"x","data":{"big":12345678901234567890}},{"name":"y"}]}`
	a := s.rest(t, "POST", "/messages", "["+batch+"]", poor)
	if difference := subsetOf(t, `{"successCount":2,"failureCount":1}`, strings.TrimSuffix(strings.TrimPrefix(a.value(t), "["), "]")); difference != "" || a.status != 201 {
		t.Errorf("%d %s: %s", a.status, a.body, difference)
	}
	var answers []struct {
		Results []struct {
			Channel, MessageID string
			Serials            []string
			Error              *struct{ Code int }
		}
	}
	if err := json.Unmarshal(a.body, &answers); err != nil || len(answers) != 1 || len(answers[0].Results) != 3 {
		t.Fatalf("%s: %v", a.body, err)
	}
	for i, result := range answers[0].Results {
		if refused := i == 1; refused != (result.Error != nil && result.Error.Code == 40160) || refused == (len(result.Serials) == 2) {
			t.Errorf("result %d is %+v", i, result)
		}
	}
	for _, channel := range []string{"mail:a", "mail:b"} {
		if got := s.all(t, "/channels/"+channel+"/messages", "limit=5"); !slices.Equal(got, []string{"y", `x {"big":12345678901234567890}`}) {
			t.Errorf("%s has %q", channel, got)
		}
	}
	// The same in msgpack, and not in a list.
	value, err := ably.DecodeValue(ably.JSON, []byte(`{"channels":"mail:c","messages":{"name":"z","data":"text"}}`))
	if err != nil {
		t.Fatal(err)
	}
	a = s.rest(t, "POST", "/messages", string(ably.AppendValue(nil, ably.Msgpack, value)), "Content-Type: application/x-msgpack", withMsgpack)
	if difference := subsetOf(t, `{"successCount":1,"failureCount":0}`, a.value(t)); difference != "" || a.status != 201 {
		t.Errorf("%d %s: %s", a.status, a.value(t), difference)
	}
	if got := s.all(t, "/channels/mail:c/messages", "limit=5"); !slices.Equal(got, []string{"z text"}) {
		t.Errorf("mail:c has %q", got)
	}
}

// Who asks too much from one address is told to wait; the messages of a publish count.
func TestAblyRESTRateLimit(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys, func(c *Config) { c.Ably.MessagesPerSecond = 5 })
	if a := s.rest(t, "POST", "/channels/room/messages", "["+strings.Repeat("{},", 20)+"{}]"); a.status != 429 || a.header.Get("X-Ably-ErrorCode") != "42910" || a.header.Get("Retry-After") == "" {
		t.Errorf("21 messages at once: %d %s", a.status, a.body)
	}
	for _, key := range []string{testAblyKey, "app.all:a guess"} {
		refused := 0
		for range 40 {
			if s.rest(t, "GET", "/stats", "", withRestKey(key)).status == 429 {
				refused++
			}
		}
		if refused == 0 {
			t.Errorf("40 requests at once are answered, with %s", key)
		}
	}
	if a := s.rest(t, "GET", "/time", ""); a.status != 200 {
		t.Errorf("the time is refused: %d", a.status)
	}
	if !strings.Contains(s.log.String(), "code=42910") {
		t.Error("the log does not tell of it")
	}
}

// What is asked about a channel: who is there, of either protocol, and which channels there are.
func TestAblyRESTChannels(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ann, ben := s.ably(t, "ann"), s.ably(t, "ben")
	ann.attach(t, "room")
	ben.attach(t, "room", func(m *ably.ProtocolMessage) { m.Flags = ably.ModeSubscribe })
	ben.attach(t, "[?rewind=1]room", func(m *ably.ProtocolMessage) { m.Flags = ably.ModePublish })
	cat := s.dial(t, "cat")
	cat.subscribe(t, "room", "")
	for _, name := range []string{"c", "a", "b"} {
		ann.attach(t, "list:"+name)
	}
	a := s.rest(t, "GET", "/channels/room", "")
	want := `{"channelId":"room","status":{"isActive":true,"occupancy":{"metrics":{"connections":3,"publishers":3,"subscribers":3,"presenceConnections":1,"presenceMembers":0,"presenceSubscribers":1}}}}`
	if difference := subsetOf(t, want, a.value(t)); difference != "" {
		t.Errorf("%s: %s", a.body, difference)
	}
	a = s.rest(t, "GET", "/channels?prefix=list:&by=id&limit=2", "", withMsgpack)
	if got := a.value(t); got != `["list:a","list:b"]` {
		t.Errorf("the first page is %s", got)
	}
	if next := s.rest(t, "GET", "/channels?"+a.next(t), ""); next.value(t) != `["list:c"]` || next.next(t) != "" {
		t.Errorf("the second page is %s", next.body)
	}
	if a := s.rest(t, "GET", "/channels?prefix=room", ""); subsetOf(t, want, strings.Trim(a.value(t), "[]")) != "" {
		t.Errorf("by value: %s", a.body)
	}
}

// Who is present is told to those who may subscribe, in pages; and what they did, in history.
func TestAblyRESTPresence(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ann := s.ably(t, "ann")
	for i := range 5 {
		ann.say(t, ably.ProtocolMessage{Action: ably.ActionPresence, Channel: ably.Some("room"), MsgSerial: ably.Some(int64(i)), Presence: []ably.PresenceMessage{
			{Action: ably.PresenceEnter, ClientID: fmt.Sprint("client", i), Data: ably.Data{Kind: ably.DataBinary, Bytes: []byte{255}}},
		}})
		ann.wantAction(t, ably.ActionAck, "")
	}
	var who []string
	for query := "limit=2"; query != ""; {
		page := s.rest(t, "GET", "/channels/room/presence?"+query, "")
		var members []struct {
			ClientID, ConnectionID, Encoding, ID string
			Action                               int
		}
		if err := json.Unmarshal(page.body, &members); err != nil || len(members) > 2 {
			t.Fatalf("%s: %v", page.body, err)
		}
		for _, m := range members {
			who = append(who, m.ClientID)
			if m.Action != int(ably.PresencePresent) || m.ConnectionID != ann.id || m.Encoding != "base64" || !strings.HasPrefix(m.ID, ann.id+":") {
				t.Errorf("a member is %+v", m)
			}
		}
		query = page.next(t)
	}
	if fmt.Sprint(who) != "[client0 client1 client2 client3 client4]" {
		t.Errorf("present are %q", who)
	}
	for filter, n := range map[string]int{"clientId=client3": 1, "clientId=nobody": 0, "connectionId=" + ann.id: 5, "connectionId=x": 0} {
		a := s.rest(t, "GET", "/channels/room/presence?"+filter, "", withMsgpack)
		if got := strings.Count(a.value(t), `"clientId"`); got != n {
			t.Errorf("%s: %d members, want %d", filter, got, n)
		}
	}
	a := s.rest(t, "GET", "/presence?channels=room,empty,:wrong", "")
	if difference := subsetOf(t, `{"successCount":2,"failureCount":1}`, a.value(t)); difference != "" || strings.Count(string(a.body), `"clientId"`) != 5 {
		t.Errorf("%s: %s", a.body, difference)
	}
	var past []string
	for query := "limit=2&direction=forwards"; query != ""; {
		page := s.rest(t, "GET", "/channels/room/presence/history?"+query, "")
		var events []struct {
			ClientID string
			Action   int
		}
		if err := json.Unmarshal(page.body, &events); err != nil {
			t.Fatalf("%s: %v", page.body, err)
		}
		for _, e := range events {
			past = append(past, fmt.Sprint(e.ClientID, " ", e.Action))
		}
		query = page.next(t)
	}
	if fmt.Sprint(past) != "[client0 2 client1 2 client2 2 client3 2 client4 2]" {
		t.Errorf("the history of presence is %q", past)
	}
	wantHubConsistent(t, s)
}

// The clock is for everybody, in the format that is asked for.
func TestAblyRESTTime(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	for _, accept := range []string{"Accept: application/json", withMsgpack, "Accept: text/html, application/x-msgpack;q=0.9"} {
		a := s.rest(t, "GET", "/time", "", accept, "Authorization:")
		if !regexp.MustCompile(`^\[\d{13}\]$`).MatchString(a.value(t)) {
			t.Errorf("%s: %q", accept, a.body)
		}
	}
	if a := s.rest(t, "GET", "/time?format=msgpack", ""); a.header.Get("Content-Type") != "application/x-msgpack" {
		t.Errorf("?format=msgpack is answered in %q", a.header.Get("Content-Type"))
	}
}

// Paths are split as they were sent.
func TestAblyPath(t *testing.T) {
	for target, want := range map[string]string{
		"/channels/a%2Fb/messages":     `["channels" "a/b" "messages"]`,
		"/channels/%5B%3Fr=1%5Da":      `["channels" "[?r=1]a"]`,
		"/channels/a%252Fb":            `["channels" "a%2Fb"]`,
		"/%63hannels/x":                `["channels" "x"]`,
		"/channels/a+b/%E6%B7%B1":      `["channels" "a+b" "深"]`,
		"/channels/a//messages":        `["channels" "a" "" "messages"]`,
		"/channels/{%2F}/messages":     "", // must be escaped: what net/url makes of it would have lost the slash
		"/channels/..%2F..%2Fmessages": `["channels" "../../messages"]`,
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		segments, ok := ablyPath(u)
		if got := fmt.Sprintf("%q", segments); ok != (want != "") || ok && got != want {
			t.Errorf("%s is %s, %t; want %s", target, got, ok, want)
		}
	}
}

// FuzzAblyQuery throws paths and queries at what reads them: nothing panics, cursors survive being written, and no link of a
// page holds what the SDK could not read, or a credential.
func FuzzAblyQuery(f *testing.F) {
	f.Add("/channels/a%2Fb/messages?limit=3&direction=forwards&cursor=abc.4.0.9")
	f.Add("/channels/%5B%3Frewind=1%5Dx/presence/history?start=1&end=2&key=a.b:c")
	f.Add("/stats?unit=hour&start=2026-03-04:10&end=1772618400000&limit=5&occupancy=metrics,metrics.publishers")
	f.Add("/channels?prefix=%2C%3C%3E%22&by=id&cursor=a,b")
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		if segments, ok := ablyPath(u); ok {
			_, name, _ := findAblyRoute("GET", segments)
			parseChannelName(name)
		}
		asked := ablyRequest{query: u.Query()}
		if s, ok := asked.readStatsQuery(time.UnixMilli(1 << 40)); ok && (s.unit == nil || s.start.After(s.end) || s.limit < 1 || s.limit > maxAblyPage) {
			t.Errorf("the statistics asked for are %+v", s)
		}
		parseOccupancy(u.Query().Get("occupancy"))
		past, problem := parseAblyPast(u.Query())
		if problem == nil && past.cursor.series != "" {
			if again, ok := parseAblyCursor(past.cursor.String()); !ok || again != past.cursor {
				t.Errorf("the cursor %+v becomes %+v", past.cursor, again)
			}
		}
		answer := restAnswer{header: make(http.Header)}
		q := ablyRequest{w: headerOnly(answer.header)}
		q.setLinks("messages", pageOf(u.Query(), "start", "limit", "prefix", "from_serial", "cursor"), "next one")
		query, err := url.ParseQuery(answer.next(t))
		if err != nil || query.Get("cursor") != "next one" || query.Has("key") {
			t.Errorf("the links are %q", answer.header.Get("Link"))
		}
	})
}

// headerOnly is an answer of which only the header counts.
type headerOnly http.Header

func (h headerOnly) Header() http.Header       { return http.Header(h) }
func (headerOnly) Write(p []byte) (int, error) { return len(p), nil }
func (headerOnly) WriteHeader(int)             {}

// What a publish costs by REST and by realtime, server and client together, over one connection each and side by side in one
// run: REST may cost at most three times as much.
func BenchmarkAblyPublish(b *testing.B) {
	start := func(b *testing.B) *testServer {
		return startServer(b, withAblyKeys, func(c *Config) { c.Ably.MessagesPerSecond, c.Ably.HistorySeconds = 0, 1 })
	}
	b.Run("realtime", func(b *testing.B) {
		s := start(b)
		ann := s.ably(b, "ann")
		for b.Loop() {
			ann.publish(b, "room", ablyText("name", "data"))
		}
	})
	b.Run("rest", func(b *testing.B) {
		s := start(b)
		socket, err := net.Dial("tcp", s.addr)
		if err != nil {
			b.Fatal(err)
		}
		defer socket.Close()
		reader := bufio.NewReader(socket)
		body := `{"name":"name","data":"data"}`
		request := []byte("POST /channels/room/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + withRestKey(testAblyKey) +
			"\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n\r\n" + body)
		for b.Loop() {
			if _, err := socket.Write(request); err != nil {
				b.Fatal(err)
			}
			answer, err := http.ReadResponse(reader, nil)
			if err != nil || answer.StatusCode != http.StatusCreated {
				b.Fatalf("%v %v", answer, err)
			}
			io.Copy(io.Discard, answer.Body)
		}
	})
}
