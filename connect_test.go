package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// whoAmI is the identity that the server gives the client. It joins a room for it and leaves it again.
func (c *client) whoAmI(t *testing.T) string {
	t.Helper()
	c.send(t, `{"type":"subscribe","channel":"who am I"}`)
	var answer struct {
		Data struct {
			UserID string `json:"user_id"`
		}
	}
	if err := json.Unmarshal([]byte(c.message(t)), &answer); err != nil {
		t.Fatal(err)
	}
	c.send(t, `{"type":"unsubscribe","channel":"who am I"}`)
	c.want(t, `{"type":"unsubscribed","channel":"who am I","data":{"members":0}}`)
	return answer.Data.UserID
}

// signed makes a token with any claims, signed with the server's own key.
func (s *testServer) signed(claims string) string {
	return signedToken(hs256Header, claims, s.cfg.JWT.Secret, sha256.New)
}

func TestTheAppConnectsOnEveryPathItUses(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for _, path := range []string{"/", "/ws", "/ws/"} {
		c := s.dial(t, "anna", withPath(path))
		if who := c.whoAmI(t); who != "anna" {
			t.Errorf("on %s I am %q", path, who)
		}
	}
	s.wantRefused(t, 404, "not_found", "anna", withPath("/socket"))
	s.wantRefused(t, 404, "not_found", "anna", withPath("/ws/x"))
	s.wantMetric(t, "websocket", "active_connections", 3)
	s.wantMetric(t, "websocket", "total_connections", 3)
}

func TestTheTokenComesInAnyOfThreePlaces(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	token := s.token(t, Claims{UserID: "anna"})

	inURL := s.dial(t, "", withQuery("token="+token))
	bearer := s.dial(t, "", withHeader("Authorization: Bearer "+token))
	protocol := s.dial(t, "", withHeader("Sec-WebSocket-Protocol: letshare.token, "+token))

	for place, c := range map[string]*client{"URL": inURL, "Authorization": bearer, "Sec-WebSocket-Protocol": protocol} {
		if who := c.whoAmI(t); who != "anna" {
			t.Errorf("with the token in %s I am %q", place, who)
		}
	}
	// A browser fails a connection whose answer does not name a protocol that it offered, and the answer must not be the token.
	if answered := protocol.answer.Header.Get("Sec-WebSocket-Protocol"); answered != "letshare.token" {
		t.Errorf("the protocol answered is %q", answered)
	}
	if answered, there := inURL.answer.Header["Sec-Websocket-Protocol"]; there {
		t.Errorf("the protocol %q was answered, none was offered", answered)
	}
}

func TestTheURLSaysWhoThenTheTokenThenChance(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) { cfg.Auth.StaticTokens = []string{"one token for all"} })
	token := s.token(t, Claims{UserID: "token's own"})
	for _, story := range []struct{ query, want string }{
		{"token=" + token + "&userId=somebody", "somebody"},
		{"token=" + token, "token's own"},
		{"token=" + token + "&userId=", "token's own"},
		// The app does not escape its name: the bytes of the URL are UTF-8.
		{"token=" + token + "&userId=小明🦊:a1b2c3", "小明🦊:a1b2c3"},
		{"token=" + token + "&userId=%E5%B0%8F%E6%98%8E%F0%9F%A6%8A:a1b2c3", "小明🦊:a1b2c3"},
		{"token=" + token + "&pro_token=x.y.z&userId=anna", "anna"},
		{"token=" + token + "&userId=" + strings.Repeat("n", 128), strings.Repeat("n", 128)},
		{"token=one+token+for+all&userId=somebody", "somebody"},
	} {
		if who := s.dial(t, "", withQuery(story.query)).whoAmI(t); who != story.want {
			t.Errorf("I am %q, want %q", who, story.want)
		}
	}
	one := s.dial(t, "", withQuery("token=one+token+for+all")).whoAmI(t)
	other := s.dial(t, "", withQuery("token=one+token+for+all")).whoAmI(t)
	if !strings.HasPrefix(one, "guest-") || len(one) < len("guest-")+10 || one == other {
		t.Errorf("two guests are %q and %q", one, other)
	}
	s.wantRefused(t, 400, "bad_user_id", "", withQuery("token="+token+"&userId="+strings.Repeat("n", 129)))
	s.wantRefused(t, 400, "bad_user_id", "", withQuery("token="+token+"&userId=%ff"))
	s.wantRefused(t, 400, "bad_user_id", "", withQuery("token="+token+"&userId=%e5%b0"))
	s.wantMetric(t, "refusals", "bad_user_id", 3)
}

func TestSeveralConnectionsOfOneUserAllStay(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	phone, laptop, bob := s.dial(t, "anna"), s.dial(t, "anna"), s.dial(t, "bob")
	bob.subscribe(t, "room", "signal:all")
	phone.subscribe(t, "room", "signal:anna")
	laptop.subscribe(t, "room", "signal:anna")

	bob.publish(t, "room", "signal:anna", `{"type":"offer","from":"bob"}`)
	phone.want(t, `{"type":"message","data":{"type":"offer"}}`)
	laptop.want(t, `{"type":"message","data":{"type":"offer"}}`)

	// What one of them says is not echoed to itself, but the user's other connection is another member.
	phone.publish(t, "room", "signal:anna", `{"type":"text"}`)
	laptop.want(t, `{"type":"message","data":{"type":"text","from":"anna"}}`)
	phone.wantNothing(t)

	phone.leave(t)
	bob.publish(t, "room", "signal:anna", `{"type":"answer","from":"bob"}`)
	laptop.want(t, `{"type":"message","data":{"type":"answer"}}`)
	bob.wantNothing(t)
}

func TestRefusalsBeforeTheUpgradeSayWhyAndNothingMore(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	now := time.Now().Unix()
	claims := func(iat, exp int64, more string) string {
		return s.signed(fmt.Sprintf(`{"user_id":"mallory","iat":%d,"exp":%d%s}`, now+iat, now+exp, more))
	}
	foreign := signedToken(hs256Header, fmt.Sprintf(`{"user_id":"mallory","exp":%d}`, now+60), "another server's key, long enough", sha256.New)
	unsigned := signedToken(`{"alg":"none"}`, fmt.Sprintf(`{"user_id":"mallory","exp":%d}`, now+60), "", sha256.New)
	refused := map[string]float64{}
	for _, story := range []struct{ name, reason, token, more string }{
		{"no token", "token_missing", "", ""},
		{"no JWT", "token_malformed", "sesame-open-sesame", ""},
		{"too long", "token_malformed", strings.Repeat("A", 4097), ""},
		{"another key", "token_signature", foreign, ""},
		{"alg none", "token_signature", unsigned, ""},
		{"expired", "token_expired", claims(-120, -60, ""), ""},
		{"not yet", "token_not_yet_valid", claims(0, 600, fmt.Sprintf(`,"nbf":%d`, now+300)), ""},
		{"no exp", "token_claims", s.signed(`{"user_id":"mallory"}`), ""},
		{"no user_id", "token_claims", s.signed(fmt.Sprintf(`{"exp":%d}`, now+60)), ""},
		{"valid for too long", "token_claims", claims(0, 8761*3600, ""), ""},
		{"bound to another", "token_claims", claims(0, 600, `,"bind_user":true`), "&userId=anna"},
	} {
		t.Run(story.name, func(t *testing.T) {
			s.wantRefused(t, 401, story.reason, "", withQuery("token="+story.token+story.more+"&trace=query-canary"))
		})
		refused[story.reason]++
		if story.token != "" && strings.Contains(s.log.String(), story.token) {
			t.Errorf("%s: the token is in the log", story.name)
		}
	}
	// Inside the leeway of 30 s a token is good.
	s.dial(t, "", withQuery("token="+claims(-120, -10, "")))
	s.dial(t, "", withQuery("token="+claims(0, 600, fmt.Sprintf(`,"nbf":%d`, now+20))))

	s.wantRefused(t, 403, "origin_not_allowed", "anna", withHeader("Origin: https://evil.example"))
	s.wantRefused(t, 403, "origin_not_allowed", "anna", withHeader("Origin: null"))
	s.wantRefused(t, 403, "origin_not_allowed", "anna", withHeader("Origin: https://"+s.addr)) // the own host, another scheme
	refused["origin_not_allowed"] = 3
	for reason, count := range refused {
		s.wantMetric(t, "refusals", reason, count)
	}
	log := s.log.String()
	for _, want := range []string{"reason=token_expired", "reason=token_missing", "address=127.0.0.1 ", "origin=https://evil.example", `allowed_origins`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
	for _, secret := range []string{"query-canary", "token=", "userId=", s.cfg.JWT.Secret} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q:\n%s", secret, log)
		}
	}
}

func TestOriginsThatMayConnect(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for _, origin := range []string{"https://letshare.fun", "https://cdn.letshare.fun:443", "http://localhost:5173", "http://" + s.addr} {
		s.dial(t, "anna", withHeader("Origin: "+origin))
	}
	s.dial(t, "anna") // no browser, no Origin
}

func TestWhatIsNoUpgradeIsToldSo(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	status, body := s.get(t, "/ws?token=query-canary")
	if status != 426 || !strings.Contains(body, `"reason":"not_an_upgrade"`) || strings.Contains(body, "canary") {
		t.Errorf("a plain GET is answered %d %s", status, body)
	}
	if header := s.wantRefused(t, 426, "not_an_upgrade", "anna", withoutHeader("Upgrade")); header.Get("Upgrade") != "websocket" {
		t.Errorf("426 without the Upgrade that it asks for: %v", header)
	}
	s.wantRefused(t, 426, "not_an_upgrade", "anna", withoutHeader("Connection"))
	header := s.wantRefused(t, 426, "not_an_upgrade", "anna", withoutHeader("Sec-WebSocket-Version"), withHeader("Sec-WebSocket-Version: 8"))
	if header.Get("Sec-WebSocket-Version") != "13" {
		t.Errorf("426 without the version spoken: %v", header)
	}
	s.wantRefused(t, 400, "not_an_upgrade", "anna", withoutHeader("Sec-WebSocket-Key"))
	s.wantRefused(t, 400, "not_an_upgrade", "anna", withoutHeader("Sec-WebSocket-Key"), withHeader("Sec-WebSocket-Key: c2hvcnQ="))
	s.wantRefused(t, 400, "not_an_upgrade", "anna", withHeader("Content-Length: 5"))
	s.wantMetric(t, "refusals", "not_an_upgrade", 7)
	s.wantMetric(t, "websocket", "total_connections", 0)
	if log := s.log.String(); strings.Contains(log, "canary") {
		t.Errorf("the log holds the query:\n%s", log)
	}
}

// A request that is wrong in every way is told the first thing that is wrong, in the order: drain, form,
// origin, token, userId, limits.
func TestTheOrderOfTheChecks(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) { cfg.WebSocket.MaxConnections = 1 })
	inside := s.dial(t, "anna")
	token := s.token(t, Claims{UserID: "bob"})
	form, origin := withoutHeader("Upgrade"), withHeader("Origin: https://evil.example")
	badID := "&userId=" + strings.Repeat("n", 129)

	s.wantRefused(t, 426, "not_an_upgrade", "", form, origin, withQuery("token=x"+badID))
	s.wantRefused(t, 403, "origin_not_allowed", "", origin, withQuery("token=x"+badID))
	s.wantRefused(t, 401, "token_malformed", "", withQuery("token=x"+badID))
	s.wantRefused(t, 400, "bad_user_id", "", withQuery("token="+token+badID))
	full := s.wantRefused(t, 503, "too_many_connections", "", withQuery("token="+token))
	if full.Get("Retry-After") == "" {
		t.Errorf("503 without Retry-After: %v", full)
	}

	// While anna does not answer the close frame, the drain goes on.
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	if opcode, payload, err := inside.read(); err != nil || opcode != opClose || string(payload[2:]) != "going_away" {
		t.Fatalf("the drain tells anna %d %q %v", opcode, payload, err)
	}
	draining := s.wantRefused(t, 503, "draining", "", form, origin, withQuery("token=x"+badID))
	if draining.Get("Retry-After") == "" {
		t.Errorf("503 without Retry-After: %v", draining)
	}
	if status, body := s.get(t, "/health"); status != 503 || !strings.Contains(body, `"draining"`) {
		t.Errorf("health during the drain: %d %s", status, body)
	}
	s.wantMetric(t, "refusals", "draining", 1)
	inside.close()
	<-stopped
}

func TestATokenForOneRoomOpensNoOther(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	bob, anna := s.dial(t, "bob"), s.dial(t, "anna", withToken(s.token(t, Claims{UserID: "anna", Room: "room456"})))
	bob.subscribe(t, "room457", "signal:all")
	anna.subscribe(t, "room456", "signal:all")

	for i, message := range []string{
		`{"type":"subscribe","channel":"room457","id":1}`,
		`{"type":"publish","channel":"room457","data":{},"id":1}`,
		`{"type":"unsubscribe","channel":"room457","id":1}`,
		`{"type":"subscribe","channel":"ROOM456","id":1}`,
	} {
		anna.send(t, message)
		anna.wantError(t, 403, "room_not_allowed")
		s.wantMetric(t, "refusals", "room_not_allowed", float64(i+1))
	}
	bob.wantNothing(t)
}

// Under strict identity nobody speaks in another's name or listens to what is for another. A token that is bound to its
// user brings it, and so does the configuration.
func TestStrictIdentity(t *testing.T) {
	t.Parallel()
	bound, all := startServer(t), startServer(t, func(cfg *Config) { cfg.WebSocket.StrictIdentity = true })
	for name, anna := range map[string]*client{
		"bind_user":       bound.dial(t, "anna", withToken(bound.token(t, Claims{UserID: "anna", Bind: true}))),
		"no userId":       bound.dial(t, "", withQuery("token="+bound.token(t, Claims{UserID: "anna", Bind: true}))),
		"strict_identity": all.dial(t, "anna"),
	} {
		t.Run(name, func(t *testing.T) {
			anna.name = "anna"
			s := anna.server
			bob := s.dial(t, "bob")
			bob.subscribe(t, "room", "signal:all")
			anna.subscribe(t, "room", "signal:all")
			anna.subscribe(t, "room", "signal:anna")
			anna.subscribe(t, "room", "any other event")

			before := s.metric(t, "refusals", "event_not_allowed")
			for _, event := range []string{"signal:bob", "signal:", "signal:ALL", "signal:anna2", `signal:\u0062ob`} {
				anna.send(t, `{"type":"subscribe","channel":"room","event":"`+event+`","id":7}`)
				anna.wantError(t, 403, "event_not_allowed")
			}
			s.wantMetric(t, "refusals", "event_not_allowed", before+5)

			before = s.metric(t, "refusals", "from_mismatch")
			for _, data := range []string{`{"from":"bob"}`, `{"from":null}`, `{"from":""}`, `{"from":["anna"]}`, `{"fr\u006fm":"bob"}`} {
				anna.send(t, `{"type":"publish","channel":"room","data":`+data+`,"id":7}`)
				anna.wantError(t, 403, "from_mismatch")
			}
			s.wantMetric(t, "refusals", "from_mismatch", before+5)
			bob.wantNothing(t)

			anna.publish(t, "room", "signal:all", `{"from":"anna","n":1}`)
			bob.wantData(t, `{"from":"anna","n":1}`)
			anna.publish(t, "room", "signal:all", `{"n":2}`)
			bob.wantData(t, `{"from":"anna","n":2}`)
			anna.publish(t, "room", "signal:bob", `{"n":3}`) // speaking to another is what signalling is for
			bob.wantNothing(t)
			bob.leave(t)
			anna.leave(t)
		})
	}
}

func TestWithoutStrictIdentityAForeignFromTravels(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	anna.subscribe(t, "room", "signal:somebody else")
	bob.subscribe(t, "room", "signal:all")
	anna.publish(t, "room", "signal:all", `{"from":"the pope"}`)
	bob.wantData(t, `{"from":"the pope"}`)
}

// A client on a fast line may send before it has the answer to its handshake. Nothing of that is lost.
func TestMessagesRightBehindTheHandshake(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	early := maskedFrame(finBit|opText, []byte(`{"type":"subscribe","channel":"room","id":1}`))
	early = append(early, maskedFrame(finBit|opText, []byte(`{"type":"subscribe","channel":"room","event":"signal:anna","id":2}`))...)
	half := maskedFrame(finBit|opText, []byte(`{"type":"unsubscribe","channel":"room","id":3}`))

	anna := s.dial(t, "anna", withEarly(append(early, half[:11]...)))

	anna.want(t, `{"type":"subscribed","event":"signal:all","id":1}`)
	anna.want(t, `{"type":"subscribed","event":"signal:anna","id":2}`)
	anna.raw(t, half[11:])
	anna.want(t, `{"type":"unsubscribed","id":3,"data":{"members":0}}`)
}

func TestCompressionIsNotNegotiated(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna := s.dial(t, "anna", withHeader("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"))
	if got := anna.answer.Header.Get("Sec-WebSocket-Extensions"); got != "" {
		t.Errorf("negotiated %q", got)
	}
	anna.raw(t, maskedFrame(finBit|0x40|opText, []byte("looks compressed")))
	opcode, payload, err := anna.read()
	if err != nil || opcode != opClose || payload[0] != 1002>>8 || payload[1] != 1002&0xFF {
		t.Errorf("a compressed frame is answered %d %q %v, want a close with 1002", opcode, payload, err)
	}
	anna.close()
	s.wantMetric(t, "closes", "protocol_error", 1)
}

func TestLimitsOfConnections(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) { cfg.WebSocket.MaxConnections = 2 })
	anna := s.dial(t, "anna")
	s.dial(t, "bob")
	s.wantRefused(t, 503, "too_many_connections", "carol")
	s.wantMetric(t, "refusals", "too_many_connections", 1)
	anna.leave(t)
	s.wantMetric(t, "websocket", "active_connections", 1)
	s.dial(t, "carol").subscribe(t, "room", "")
	if !strings.Contains(s.log.String(), "reason=too_many_connections address=127.0.0.1 ") {
		t.Errorf("the log does not tell of the refusal:\n%s", s.log)
	}
}

func TestLimitsOfConnectionsPerAddress(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) {
		cfg.WebSocket.MaxConnectionsPerAddress = 2
		cfg.Server.TrustedProxies = []string{"127.0.0.0/8"}
	})
	from := func(address string) dialOption { return withHeader("X-Forwarded-For: " + address) }
	const reason = "too_many_connections_from_address"

	// In a /64 everybody is one household.
	anna := s.dial(t, "anna", from("2001:db8:1:2::1"))
	s.dial(t, "anna", from("2001:db8:1:2:ffff::9"))
	refused := s.wantRefused(t, 503, reason, "anna", from("2001:db8:1:2:3:4:5:6"))
	if refused.Get("Retry-After") == "" {
		t.Errorf("503 without Retry-After: %v", refused)
	}
	s.dial(t, "anna", from("2001:db8:1:3::1"))

	// What a client claims before the proxy's own hop counts for nothing.
	s.dial(t, "bob", from("192.0.2.1"))
	s.dial(t, "bob", from("198.51.100.7, 192.0.2.1"))
	s.wantRefused(t, 503, reason, "bob", from("203.0.113.9, 192.0.2.1"))
	s.dial(t, "bob", from("192.0.2.2"))
	s.wantMetric(t, "refusals", reason, 2)

	// Who leaves makes room; a refused handshake takes none.
	anna.leave(t)
	s.wantMetric(t, "websocket", "active_connections", 5)
	s.dial(t, "anna", from("2001:db8:1:2::7"))
	s.wantRefused(t, 503, reason, "anna", from("2001:db8:1:2::8"))
}

// A handshake that is refused for its token takes no place of its address.
func TestARefusedTokenTakesNoPlace(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) { cfg.WebSocket.MaxConnectionsPerAddress = 1 })
	for range 3 {
		s.wantRefused(t, 401, "token_malformed", "", withQuery(url.Values{"token": {"x"}}.Encode()))
	}
	if c := s.dial(t, "anna"); c.answer.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("anna is answered %s", c.answer.Status)
	}
}
