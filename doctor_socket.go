package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// upgradeFix are the lines that proxies need.
const upgradeFix = `nginx: add "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";" ` +
	`to the location; Apache: "ProxyPass / http://127.0.0.1:8080/ upgrade=websocket"; others: switch WebSockets on (see deploy/)`

// upgradeVerdict is what became of an upgrade.
type upgradeVerdict struct {
	ok        bool // it arrived at letshare
	connected bool // and was let in
	text, fix string
}

// checkUpgrades tries both paths, and returns one on which a connection came about, "" if there is none.
func (d *doctor) checkUpgrades(ctx context.Context) (path string) {
	paths := []string{"/", "/ws"}
	var verdicts []upgradeVerdict
	for _, p := range paths {
		v := d.tryUpgrade(ctx, p)
		verdicts = append(verdicts, v)
		if v.connected && path == "" {
			path = p
		}
	}
	if verdicts[0] == verdicts[1] {
		d.sayUpgrade("/ and /ws", verdicts[0])
		return path
	}
	for i, v := range verdicts {
		d.sayUpgrade(paths[i], v)
	}
	return path
}

func (d *doctor) sayUpgrade(where string, v upgradeVerdict) {
	if v.ok {
		d.ok("upgrade", "on %s: %s", where, v.text)
	} else {
		d.fail("upgrade", v.fix, "on %s: %s", where, v.text)
	}
}

// tryUpgrade opens a WebSocket and closes it again.
func (d *doctor) tryUpgrade(ctx context.Context, path string) upgradeVerdict {
	socket, answer, err := d.dial(ctx, path)
	if err == nil {
		socket.CloseNow()
		return upgradeVerdict{ok: true, connected: true, text: "connected"}
	}
	if answer == nil {
		return upgradeVerdict{text: fmt.Sprintf("no answer: %v", err), fix: "see the proxy's error log"}
	}
	if answer.StatusCode == http.StatusSwitchingProtocols {
		return upgradeVerdict{text: fmt.Sprintf("the answer is damaged: %v", err), fix: "let the proxy pass the answer on as it is"}
	}
	return d.describeRefusal(newReply(answer))
}

// dial opens a WebSocket. Of a refusal it returns the answer, whose body can be read.
func (d *doctor) dial(ctx context.Context, path string) (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, doctorStep)
	defer cancel()
	return websocket.Dial(ctx, d.url(path, ""), &websocket.DialOptions{HTTPClient: d.client, HTTPHeader: d.header()})
}

// describeRefusal says who refused an upgrade, and why. What has been said of the token and the origin is not said again.
func (d *doctor) describeRefusal(r *reply) upgradeVerdict {
	fix, aboutToken := tokenFixes[r.reason]
	aboutOrigin := r.reason == OriginNotAllowed.String()
	switch {
	case r.reason == TokenMissing.String() && d.token == "":
		return upgradeVerdict{ok: true, text: "it arrives; -token goes on from here"}
	case (aboutToken || aboutOrigin) && d.report != nil:
		return upgradeVerdict{ok: true, text: "it arrives, and is refused as said above: " + r.reason}
	case aboutToken || aboutOrigin:
		return upgradeVerdict{text: fmt.Sprintf("refused: %s, %s", r.reason, r.message), fix: fix + map[bool]string{true: "add the page to cors.allowed_origins"}[aboutOrigin]}
	case r.reason == NotAnUpgrade.String():
		how := "without its Upgrade and Connection headers"
		if d.report != nil && d.report.Upgrade.Reason == upgradeHTTP10 {
			how = "over HTTP/1.0, which has no upgrades"
		}
		return upgradeVerdict{text: "the proxy passed the request on " + how, fix: upgradeFix}
	case r.reason == "" && (r.status == http.StatusBadRequest || r.status == http.StatusUpgradeRequired || r.status == http.StatusNotImplemented):
		return upgradeVerdict{text: fmt.Sprintf("the proxy answered %d to the upgrade", r.status), fix: upgradeFix}
	}
	text, fix := d.strange(r)
	return upgradeVerdict{text: text, fix: fix}
}

// doctorEnd is one end of the conversation. Its goroutine reads until the connection ends.
type doctorEnd struct {
	socket *websocket.Conn
	heard  chan doctorMessage // closed when the connection has ended; then err says why
	err    error
}

// doctorMessage is what the doctor reads of a message.
type doctorMessage struct {
	Type  string
	Data  json.RawMessage
	Error struct{ Reason, Message string }
}

// join opens a connection and reads from it in a goroutine of its own, until leave.
func (d *doctor) join(ctx context.Context, path string) (*doctorEnd, error) {
	socket, _, err := d.dial(ctx, path)
	if err != nil {
		return nil, err
	}
	e := &doctorEnd{socket: socket, heard: make(chan doctorMessage, 16)}
	go func() {
		defer close(e.heard)
		for {
			_, text, err := socket.Read(ctx)
			if err != nil {
				e.err = err
				return
			}
			var message doctorMessage
			if json.Unmarshal(text, &message) != nil {
				e.err = errors.New("a message that is not JSON")
				return
			}
			select {
			case e.heard <- message:
			default: // nobody asked for so much
			}
		}
	}()
	return e, nil
}

// leave closes the connection and waits for its goroutine.
func (e *doctorEnd) leave() {
	e.socket.CloseNow()
	for range e.heard {
	}
}

// say sends a message.
func (e *doctorEnd) say(ctx context.Context, message map[string]any) error {
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	return e.socket.Write(ctx, websocket.MessageText, text)
}

// await waits for a message of a type, within ctx. An error message of the server is an error.
func (e *doctorEnd) await(ctx context.Context, kind string) (doctorMessage, error) {
	for {
		select {
		case message, open := <-e.heard:
			switch {
			case !open:
				return message, e.err
			case message.Type == kind:
				return message, nil
			case message.Type == "error":
				return message, fmt.Errorf("%s, %s", message.Error.Reason, message.Error.Message)
			}
		case <-ctx.Done():
			return doctorMessage{}, fmt.Errorf("nothing came within %s", doctorStep)
		}
	}
}

// checkMessages sends a message from one connection to another, then lets both be silent and sends another one.
func (d *doctor) checkMessages(ctx context.Context, path string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ends [2]*doctorEnd
	for i := range ends {
		end, err := d.join(ctx, path)
		if err != nil {
			d.fail("message", "try again; if it stays so, see the server's log", "connection %d: %v", i+1, err)
			return
		}
		defer end.leave()
		ends[i] = end
	}
	room, event := d.meetingPlace()
	for _, end := range ends {
		if err := d.subscribe(ctx, end, room, event); err != nil {
			d.fail("message", "see docs/operations.md for the reason", "joining the room %s: %v", room, err)
			return
		}
	}
	took, err := d.pass(ctx, ends, room, event)
	if err != nil {
		d.fail("message", "see the server's log", "no message from one connection to the other: %v", err)
		return
	}
	d.ok("message", "from one connection to the other in %s", took.Round(100*time.Microsecond))
	if d.idle == 0 {
		d.skip("idle", "-quick leaves it out")
		return
	}
	d.checkIdle(ctx, ends, room, event)
}

// checkIdle leaves both connections alone but for the server's pings, which the library answers.
func (d *doctor) checkIdle(ctx context.Context, ends [2]*doctorEnd, room, event string) {
	const fix = "give silent tunnels longer than the server's ping interval of 25 s: nginx proxy_read_timeout 90s; HAProxy timeout tunnel 90s; Apache ProxyTimeout 90"
	began := time.Now()
	timer := time.NewTimer(d.idle)
	defer timer.Stop()
	var cut *doctorEnd
	select {
	case <-timer.C:
	case <-ctx.Done():
		return
	case <-ends[0].heard:
		cut = ends[0]
	case <-ends[1].heard:
		cut = ends[1]
	}
	if cut != nil {
		lived := time.Since(began).Round(time.Second / 10)
		cut.leave()
		if code := websocket.CloseStatus(cut.err); code != -1 {
			d.fail("idle", "see docs/operations.md for the code; a proxy that reloads may send one, too", "a connection was closed with code %d after %s", code, lived)
		} else {
			d.fail("idle", fix, "a silent connection was cut after %s", lived)
		}
		return
	}
	if _, err := d.pass(ctx, ends, room, event); err != nil {
		d.fail("idle", fix, "after %s of silence nothing passes any more: %v", d.idle, err)
		return
	}
	d.ok("idle", "two connections lived through %s of silence", d.idle)
}

// meetingPlace is a room and an event that nobody else has; the token's only room if it has one.
func (d *doctor) meetingPlace() (room, event string) {
	name := strings.ToLower(rand.Text())
	room, event = "doctor-"+name[:5], "doctor:"+name
	if parts := strings.Split(d.token, "."); len(parts) == 3 {
		var claims struct {
			Room string `json:"room_id"`
		}
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err == nil && json.Unmarshal(payload, &claims) == nil && claims.Room != "" {
			room = claims.Room
		}
	}
	return room, event
}

// subscribe joins a room for one event.
func (d *doctor) subscribe(ctx context.Context, end *doctorEnd, room, event string) error {
	ctx, cancel := context.WithTimeout(ctx, doctorStep)
	defer cancel()
	if err := end.say(ctx, map[string]any{"type": "subscribe", "channel": room, "event": event}); err != nil {
		return err
	}
	_, err := end.await(ctx, "subscribed")
	return err
}

// pass sends a message from the first end to the second and returns how long it took.
func (d *doctor) pass(ctx context.Context, ends [2]*doctorEnd, room, event string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, doctorStep)
	defer cancel()
	began, word := time.Now(), rand.Text()
	err := ends[0].say(ctx, map[string]any{"type": "publish", "channel": room, "event": event, "data": map[string]string{"doctor": word}})
	if err != nil {
		return 0, err
	}
	message, err := ends[1].await(ctx, "message")
	if err == nil && !strings.Contains(string(message.Data), word) {
		err = errors.New("another message came")
	}
	return time.Since(began), err
}
