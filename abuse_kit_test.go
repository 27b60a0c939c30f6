package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The tests named TestAbuseNN play what hostile, broken and unlucky clients do to a server, by the numbers of
// docs/reliability.md. Each has bystanders, who do nothing wrong and must not notice anything.

// nearRoom is where the attackers are, with two of the bystanders; the other two are in farRoom.
const (
	nearRoom = "room"
	farRoom  = "elsewhere"
)

// pulseInterval is how often each bystander says a number.
const pulseInterval = 100 * time.Millisecond

// keptBytes is how much of a message a bystander remembers.
const keptBytes = 300

// bystander is a client that says a number every pulseInterval and listens to its partner's numbers, and to
// all else that is said in the room.
type bystander struct {
	c       *client
	room    string
	partner *bystander
	heard   atomic.Int64 // the partner's latest number
	stop    chan struct{}
	done    chan error // from both of its goroutines

	mu     sync.Mutex
	others []string        // what others said, cut to keptBytes
	spoke  []time.Time     // when it said each of its numbers
	lags   []time.Duration // how long the partner's numbers took
}

// pulse is what a bystander says.
func pulse(from, room string, n int64, last bool) string {
	return fmt.Sprintf(`{"type":"publish","channel":%q,"event":"pulse","data":{"from":%q,"pulse":%d,"last":%t}}`, room, from, n, last)
}

// talk says numbers until stop, and then that this was the last.
func (b *bystander) talk() error {
	ticker := time.NewTicker(pulseInterval)
	defer ticker.Stop()
	for n, last := int64(1), false; !last; n++ {
		select {
		case <-ticker.C:
		case <-b.stop:
			last = true
		}
		b.mu.Lock()
		b.spoke = append(b.spoke, time.Now())
		b.mu.Unlock()
		b.c.socket.SetWriteDeadline(time.Now().Add(patience))
		if _, err := b.c.socket.Write(maskedFrame(finBit|opText, []byte(pulse(b.c.name, b.room, n, last)))); err != nil {
			return fmt.Errorf("%s cannot talk: %w", b.c.name, err)
		}
	}
	return nil
}

// listen reads until the partner's last number. Every number must come, in order, and nothing that is an error.
func (b *bystander) listen() error {
	begin := fmt.Sprintf(`"data":{"from":%q,"pulse":`, b.partner.c.name)
	for {
		opcode, payload, err := b.c.read()
		switch {
		case err != nil:
			return fmt.Errorf("%s cannot listen: %w", b.c.name, err)
		case opcode == opPing:
			b.c.socket.Write(maskedFrame(finBit|opPong, payload))
			continue
		case opcode != opText || bytes.HasPrefix(payload, []byte(`{"type":"error"`)):
			return fmt.Errorf("%s gets opcode %d, %.200q", b.c.name, opcode, payload)
		}
		_, rest, found := strings.Cut(string(payload), begin)
		if !found {
			b.mu.Lock()
			b.others = append(b.others, string(payload[:min(len(payload), keptBytes)]))
			b.mu.Unlock()
			continue
		}
		number, rest, _ := strings.Cut(rest, ",")
		if n, _ := strconv.ParseInt(number, 10, 64); n != b.heard.Add(1) {
			return fmt.Errorf("%s hears number %d of %s after %d", b.c.name, n, b.partner.c.name, b.heard.Load()-1)
		}
		b.note(time.Since(b.partner.spokeAt(b.heard.Load())))
		if strings.HasPrefix(rest, `"last":true`) {
			return nil
		}
	}
}

// spokeAt is when the bystander said a number.
func (b *bystander) spokeAt(n int64) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.spoke[n-1]
}

// note remembers how long a number of the partner's took.
func (b *bystander) note(lag time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lags = append(b.lags, lag)
}

// Bystanders may hear later under an attack than before it, by so many times at most, and a number of pulses is always allowed:
// who else works on this machine must not decide.
const (
	attackSlowness = 20
	attackPulses   = 100
)

// slowest is the 99th percentile of how long numbers took to be heard.
func slowest(lags []time.Duration) time.Duration {
	if len(lags) == 0 {
		return 0
	}
	slices.Sort(lags)
	return lags[(len(lags)-1)*99/100]
}

// wantPrompt wants the bystanders to have heard each other as promptly as in the quiet, within bounds that an idle machine and a
// busy one keep.
func (a *abused) wantPrompt() {
	a.t.Helper()
	var quiet, attacked []time.Duration
	for i, b := range a.bystanders {
		b.mu.Lock()
		quiet = append(quiet, b.lags[:min(a.quiet[i], len(b.lags))]...)
		attacked = append(attacked, b.lags[min(a.quiet[i], len(b.lags)):]...)
		b.mu.Unlock()
	}
	before, during := slowest(quiet), slowest(attacked)
	if most := max(attackSlowness*before, attackPulses*pulseInterval); during > most {
		a.t.Errorf("under attack numbers took %v to be heard (99th percentile of %d), before it %v; at most %v are allowed", during, len(attacked), before, most)
	}
}

// abused is a server that is to be attacked, with its bystanders.
type abused struct {
	*testServer
	t          *testing.T
	bystanders []*bystander // near ann and near bob in nearRoom, far ann and far bob in farRoom
	quiet      []int        // how many numbers each had heard before the attack
	onAbly     []*ablyBystander
	silent     bool      // onAbly has stopped
	goroutines int       // of the server before anybody connected
	attackers  []*client // closed by calm
	calmed     bool
}

// underAttack starts a server with bystanders. Test ends with calm.
func underAttack(t *testing.T, change ...func(*Config)) *abused {
	t.Helper()
	return watch(t, startServer(t, change...))
}

// watch lets bystanders connect to a server, which may be another process.
func watch(t *testing.T, s *testServer) *abused {
	t.Helper()
	a := &abused{testServer: s, t: t}
	s.get(t, "/health") // it runs when this is answered
	a.goroutines = a.serverGoroutines()
	for _, place := range []struct{ who, room string }{{"near", nearRoom}, {"far", farRoom}} {
		for _, name := range []string{"ann", "bob"} {
			b := &bystander{room: place.room, stop: make(chan struct{}), done: make(chan error, 2)}
			b.c = s.dial(t, place.who+" "+name)
			b.c.subscribe(t, b.room, "pulse")
			b.c.subscribe(t, b.room, "")
			a.bystanders = append(a.bystanders, b)
		}
	}
	for i, b := range a.bystanders {
		b.partner = a.bystanders[i^1]
	}
	for _, b := range a.bystanders {
		go func() { b.done <- b.talk() }()
		go func() { b.done <- b.listen() }()
	}
	t.Cleanup(func() {
		if !a.calmed {
			t.Error("the test ended without calm")
		}
	})
	a.lull()
	for _, b := range a.bystanders {
		a.quiet = append(a.quiet, int(b.heard.Load()))
	}
	return a
}

// dial connects an attacker, whose socket ends with calm at the latest.
func (a *abused) dial(user string, options ...dialOption) *client {
	a.t.Helper()
	c := a.testServer.dial(a.t, user, options...)
	a.attackers = append(a.attackers, c)
	return c
}

// member connects an attacker and lets it into nearRoom.
func (a *abused) member(user string, options ...dialOption) *client {
	a.t.Helper()
	c := a.dial(user, options...)
	c.subscribe(a.t, nearRoom, "")
	return c
}

// frozen is a member with the smallest receive buffer that the kernel gives. It must not be read from.
func (a *abused) frozen(user string) *client {
	a.t.Helper()
	c := a.member(user)
	if err := c.socket.(*net.TCPConn).SetReadBuffer(128); err != nil {
		a.t.Fatal(err)
	}
	return c
}

// lull waits until every bystander has heard three more numbers.
func (a *abused) lull() {
	a.t.Helper()
	for _, b := range a.bystanders {
		want := b.heard.Load() + 3
		for deadline := time.Now().Add(patience); b.heard.Load() < want && len(b.done) == 0 && time.Now().Before(deadline); {
			time.Sleep(5 * time.Millisecond)
		}
		if b.heard.Load() < want {
			a.t.Errorf("%s has not heard of %s for %v", b.c.name, b.partner.c.name, patience)
		}
	}
}

// overheard is what one bystander in nearRoom heard on the common event.
func (a *abused) overheard() []string {
	b := a.bystanders[0]
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.others...)
}

// calm wants the bystanders to have missed nothing, and after everybody has gone the server to be as it was.
func (a *abused) calm() {
	a.t.Helper()
	a.calmed = true
	a.lull()
	for _, b := range a.bystanders {
		close(b.stop)
	}
	for _, b := range a.bystanders {
		for range cap(b.done) {
			select {
			case err := <-b.done:
				if err != nil {
					a.t.Error(err)
				}
			case <-time.After(2 * patience):
				a.t.Errorf("%s does not hear the last of %s", b.c.name, b.partner.c.name)
			}
		}
	}
	a.calmAbly()
	a.wantPrompt()
	a.wantConsistent()
	for _, c := range a.attackers {
		c.close()
	}
	for _, b := range a.bystanders {
		b.c.close()
	}
	a.wantMetric(a.t, "websocket", "active_connections", 0)
	a.wantMetric(a.t, "websocket", "total_rooms", 0)
	a.wantMetric(a.t, "websocket", "buffered_bytes", 0)
	n := a.serverGoroutines()
	for deadline := time.Now().Add(patience); n > a.goroutines && time.Now().Before(deadline); n = a.serverGoroutines() {
		time.Sleep(10 * time.Millisecond)
	}
	if n > a.goroutines {
		a.t.Errorf("%d goroutines, %d before", n, a.goroutines)
	}
	a.wantConsistent()
}

// wantConsistent asks the server for its own opinion.
func (a *abused) wantConsistent() {
	a.t.Helper()
	if status, text := a.get(a.t, "/debug/check"); status != http.StatusOK || text != "consistent\n" {
		a.t.Errorf("%d %s", status, text)
	}
}

// serverGoroutines is how many goroutines the server has: those with its label, or those of its process.
func (a *abused) serverGoroutines() int {
	a.t.Helper()
	if a.server == nil {
		return int(a.metric(a.t, "system", "goroutines"))
	}
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		a.t.Fatal(err)
	}
	// "3 @ 0x1 0x2", then "# labels: {"server":"127.0.0.1:1"}".
	label, n, of := fmt.Sprintf("%q:%q", "server", a.addr), 0, 0
	for line := range strings.Lines(profile.String()) {
		if count, _, found := strings.Cut(line, " @ "); found {
			of, _ = strconv.Atoi(count)
		} else if strings.HasPrefix(line, "# labels:") && strings.Contains(line, label) {
			n += of
		}
	}
	return n
}

// pour writes the same bytes over and over, until total bytes are written, the socket fails or stop is true.
func (c *client) pour(p []byte, total int, stop *atomic.Bool) {
	for sent := 0; sent < total && !stop.Load(); sent += len(p) {
		c.socket.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := c.socket.Write(p); err != nil {
			return
		}
	}
}

// flood pours in the background. stop waits for it.
func (c *client) flood(p []byte, total int) (stop func()) {
	var ended atomic.Bool
	done := make(chan struct{})
	go func() { c.pour(p, total, &ended); close(done) }()
	return func() { ended.Store(true); <-done }
}

// wantClosed reads, however much it is, until the close frame with this code and text, and closes the socket.
func (c *client) wantClosed(t *testing.T, code int, reason string) (texts []string) {
	t.Helper()
	defer c.close()
	for {
		opcode, payload, err := c.read()
		switch {
		case err != nil:
			t.Errorf("%s waits for the close frame %s: %v", c.name, reason, err)
			return texts
		case opcode == opClose:
			if want := string(closeFrame(uint16(code), reason)[2:]); string(payload) != want {
				t.Errorf("%s is closed with %q, want %q", c.name, payload, want)
			}
			return texts
		case opcode == opText:
			texts = append(texts, string(payload))
		}
	}
}

// quickUpgrade makes a WebSocket connection without the help of a test, and returns the socket, a reader that has read the
// answer, and the answer's status and header.
func quickUpgrade(addr, query string, lines ...string) (net.Conn, *bufio.Reader, *http.Response, error) {
	socket, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, nil, nil, err
	}
	request := "GET /ws?" + query + " HTTP/1.1\r\nHost: " + addr + "\r\n" + strings.Join(usualHandshake[1:], "\r\n") + "\r\n"
	for _, line := range lines {
		request += line + "\r\n"
	}
	socket.SetDeadline(time.Now().Add(3 * patience))
	reader := bufio.NewReader(socket)
	if _, err = io.WriteString(socket, request+"\r\n"); err == nil {
		var answer *http.Response
		if answer, err = http.ReadResponse(reader, nil); err == nil {
			return socket, reader, answer, nil
		}
	}
	socket.Close()
	return nil, nil, nil, err
}

// crowd connects n clients at once, as user 0, user 1 and so on, and sends each one's first words. All must be let in.
func (a *abused) crowd(n int, words func(i int) []byte) (sockets []net.Conn) {
	a.t.Helper()
	token := a.token(a.t, Claims{UserID: "crowd"})
	var mu sync.Mutex
	var workers sync.WaitGroup
	var next atomic.Int64
	for range 16 {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				socket, _, answer, err := quickUpgrade(a.addr, url.Values{"token": {token}, "userId": {fmt.Sprint("user ", i)}}.Encode())
				if err == nil && answer.StatusCode != http.StatusSwitchingProtocols {
					err = fmt.Errorf("%s", answer.Status)
				}
				if err == nil && words != nil {
					_, err = socket.Write(words(int(i)))
				}
				mu.Lock()
				if err != nil {
					a.t.Errorf("client %d: %v", i, err)
				} else {
					sockets = append(sockets, socket)
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	a.t.Cleanup(func() { closeAll(sockets) })
	return sockets
}

func closeAll(sockets []net.Conn) {
	for _, socket := range sockets {
		socket.Close()
	}
}

// bubbleBystanders are the bystanders of a server in a bubble.
type bubbleBystanders struct {
	server *pipeServer
	all    []*pipeClient // near ann, near bob, far ann, far bob
	stop   chan struct{}
	talked chan struct{} // closed when nobody talks any more
}

// attackInBubble plays a story about time with bystanders.
func attackInBubble(t *testing.T, change func(*Config), story func(*testing.T, *pipeServer)) {
	t.Helper()
	inBubble(t, change, func(t *testing.T, s *pipeServer) {
		b := &bubbleBystanders{server: s, stop: make(chan struct{}), talked: make(chan struct{})}
		for _, name := range []string{"near ann", "near bob", "far ann", "far bob"} {
			c := s.connect(name)
			c.send(fmt.Sprintf(`{"type":"subscribe","channel":%q,"event":"pulse"}`, roomOfBystander(name)))
			b.all = append(b.all, c)
		}
		go b.talk()
		defer b.calm(t)
		story(t, s)
	})
}

func roomOfBystander(name string) string {
	if strings.HasPrefix(name, "near") {
		return nearRoom
	}
	return farRoom
}

// bystanderNames are in the order of bubbleBystanders.all; each one's partner is the neighbour.
var bystanderNames = []string{"near ann", "near bob", "far ann", "far bob"}

// talk says a number for each of them every pulseInterval.
func (b *bubbleBystanders) talk() {
	defer close(b.talked)
	ticker := time.NewTicker(pulseInterval)
	defer ticker.Stop()
	for n := int64(1); ; n++ {
		select {
		case <-ticker.C:
		case <-b.stop:
			return
		}
		for i, c := range b.all {
			c.queue(maskedFrame(finBit|opText, []byte(pulse(bystanderNames[i], roomOfBystander(bystanderNames[i]), n, false))))
		}
	}
}

// calm wants nobody to have missed a number, and the server to be empty when they have gone.
func (b *bubbleBystanders) calm(t *testing.T) {
	time.Sleep(time.Second + pulseInterval/2) // also after a story that takes no time they have said ten numbers
	close(b.stop)
	<-b.talked
	synctest.Wait()
	said := 0
	for i, c := range b.all {
		partner, n := bystanderNames[i^1], 0
		for _, text := range c.got() {
			switch {
			case strings.Contains(text, fmt.Sprintf(`"data":{"from":%q,"pulse":`, partner)):
				if n++; !strings.Contains(text, fmt.Sprintf(`"pulse":%d,`, n)) {
					t.Fatalf("%s hears %s, want number %d", bystanderNames[i], text, n)
				}
			case !strings.HasPrefix(text, `{"type":"message"`) && !strings.HasPrefix(text, `{"type":"subscribed"`):
				t.Errorf("%s gets %s", bystanderNames[i], text)
			}
		}
		if i == 0 {
			said = n
		}
		if n != said || n < 10 {
			t.Errorf("%s heard %d numbers, another %d", bystanderNames[i], n, said)
		}
	}
	if err := b.server.ConsistencyCheck(); err != nil {
		t.Error(err)
	}
	for _, c := range b.all {
		c.socket.Close()
	}
	time.Sleep(closeLinger + time.Second)
	synctest.Wait()
	if err := b.server.ConsistencyCheck(); err != nil {
		t.Error(err)
	}
	live, rooms, held := b.server.conns.live(), b.server.hub.totals().rooms, b.server.budget.total.Load()
	if live != 0 || rooms != 0 || held != 0 {
		t.Errorf("%d connections, %d rooms and %d bytes are left", live, rooms, held)
	}
}
