package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// grace is how long after a user's end the room is told, in these stories.
const grace = 30 * time.Second

// inLeaveBubble runs a story on a server that announces leaves, with bob in the room, who hears them. Afterwards all that is
// kept twice must agree.
func inLeaveBubble(t *testing.T, change func(*Config), story func(s *pipeServer, bob *pipeClient)) {
	t.Helper()
	inBubble(t, func(c *Config) {
		c.WebSocket.AnnounceLeaveSeconds = grace.Seconds()
		if change != nil {
			change(c)
		}
	}, func(t *testing.T, s *pipeServer) {
		bob := s.connect("bob")
		bob.subscribe("room")
		story(s, bob)
		synctest.Wait()
		if err := s.ConsistencyCheck(); err != nil && err != errCheckStopped {
			t.Error(err)
		}
	})
}

// join connects a user and subscribes to the room as the app does.
func (s *pipeServer) join(user string) *pipeClient {
	s.t.Helper()
	c := s.connect(user)
	c.send(fmt.Sprintf(`{"type":"subscribe","channel":"room","event":"signal:%s"}`, user))
	c.subscribe("room")
	return c
}

// die ends the connection without a word, and waits until the server has seen it.
func (c *pipeClient) die() {
	c.socket.Close()
	<-c.closed
	synctest.Wait()
}

// leaves lists who left, of what the client got: the messages must be exactly the app's own.
func (c *pipeClient) leaves() (users []string) {
	c.t.Helper()
	for _, text := range c.got() {
		rest, isMessage := strings.CutPrefix(text, `{"type":"message","channel":"room","event":"signal:all","data":{"from":"`)
		user, rest, _ := strings.Cut(rest, `"`)
		if rest, isLeave := strings.CutPrefix(rest, `,"type":"leave"},"timestamp":`); isMessage && isLeave && len(rest) == timestampDigits+1 {
			users = append(users, user)
		} else if isMessage || strings.Contains(text, "leave") {
			c.t.Errorf("got %s, which is no leave", text)
		}
	}
	return users
}

// wantLeaves wants exactly these users to have left so far.
func (c *pipeClient) wantLeaves(want ...string) {
	c.t.Helper()
	if got := c.leaves(); !slices.Equal(got, want) {
		c.t.Errorf("left are %q, want %q", got, want)
	}
}

// missed is how many users the server would announce.
func (s *pipeServer) missed() (users int) {
	var mu sync.Mutex
	s.hub.each(func(sh *shard) { // on the shards: the field is theirs
		mu.Lock()
		defer mu.Unlock()
		users += sh.missed
	})
	return users
}

func TestTheRoomHearsOfAUserWhoDied(t *testing.T) {
	inLeaveBubble(t, nil, func(s *pipeServer, bob *pipeClient) {
		anna, carl := s.join("anna"), s.connect("carl")
		carl.send(`{"type":"subscribe","channel":"room","event":"signal:carl"}`)
		anna.die()
		time.Sleep(grace - time.Millisecond)
		bob.wantLeaves()
		time.Sleep(tickInterval + time.Millisecond)
		bob.wantLeaves("anna")
		carl.wantLeaves() // listens to something else
		time.Sleep(10 * grace)
		bob.wantLeaves("anna") // once
		if s.missed() != 0 {
			s.t.Error("the server would go on telling")
		}
	})
}

// However a connection ends that the page did not close, the others keep a tile.
func TestAUserWhoWasCutLeavesToo(t *testing.T) {
	inLeaveBubble(t, nil, func(s *pipeServer, bob *pipeClient) {
		expiring, silent := s.connectWith("expiring", grace, true, true), s.connectWith("silent", 0, false, true)
		expiring.subscribe("room")
		silent.subscribe("room")
		<-expiring.closed
		<-silent.closed
		s.wantCloses("idle_timeout 1", "token_expired 1")
		time.Sleep(grace + 2*tickInterval)
		got := bob.leaves()
		slices.Sort(got)
		if !slices.Equal(got, []string{"expiring", "silent"}) {
			s.t.Errorf("left are %q", got)
		}
	})
}

// The app says leave or unsubscribes, and closes: that is for it to say, and nobody is missed.
func TestWhoLeavesProperlyIsNotAnnounced(t *testing.T) {
	inLeaveBubble(t, nil, func(s *pipeServer, bob *pipeClient) {
		page, polite, dropped := s.join("page"), s.join("polite"), s.join("dropped")
		page.write(maskedFrame(finBit|opClose, []byte{1001 >> 8, 1001 & 0xFF}))
		for _, c := range []*pipeClient{polite, dropped} {
			c.send(fmt.Sprintf(`{"type":"unsubscribe","channel":"room","event":"signal:%s"}`, map[*pipeClient]string{polite: "polite", dropped: "dropped"}[c]))
			c.send(`{"type":"unsubscribe","channel":"room","event":"signal:all"}`)
		}
		polite.write(maskedFrame(finBit|opClose, nil))
		dropped.die()
		if s.missed() != 0 {
			s.t.Error("somebody is missed who left properly")
		}
		time.Sleep(2 * grace)
		bob.wantLeaves()

		half := s.join("half")
		half.send(`{"type":"unsubscribe","channel":"room","event":"signal:half"}`)
		half.die()
		time.Sleep(grace + tickInterval)
		bob.wantLeaves("half") // still was in the room
	})
}

func TestAUserWithAnotherSocketInTheRoomIsThere(t *testing.T) {
	inLeaveBubble(t, nil, func(s *pipeServer, bob *pipeClient) {
		first, second, elsewhere := s.join("anna"), s.join("anna"), s.connect("anna")
		elsewhere.subscribe("other")
		first.die()
		time.Sleep(2 * grace)
		bob.wantLeaves()
		second.die()
		time.Sleep(grace - time.Millisecond)
		bob.wantLeaves()
		time.Sleep(tickInterval + time.Millisecond)
		bob.wantLeaves("anna") // the socket in another room is not in this one
		elsewhere.alive()
	})
}

func TestAUserWhoComesBackInTimeWasNeverGone(t *testing.T) {
	inLeaveBubble(t, nil, func(s *pipeServer, bob *pipeClient) {
		s.join("anna").die()
		time.Sleep(grace - time.Second)
		again := s.join("anna")
		if s.missed() != 0 {
			s.t.Error("anna is there, and missed")
		}
		time.Sleep(2 * grace)
		bob.wantLeaves()
		again.die() // the grace begins anew
		time.Sleep(grace - time.Millisecond)
		bob.wantLeaves()
		time.Sleep(tickInterval + time.Millisecond)
		bob.wantLeaves("anna")
	})
}

// A room with nobody in it is gone, and whoever comes next has never seen a tile.
func TestNobodyIsToldInAnEmptyRoom(t *testing.T) {
	inLeaveBubble(t, nil, func(s *pipeServer, bob *pipeClient) {
		s.join("anna").die()
		bob.send(`{"type":"unsubscribe","channel":"room"}`)
		if rooms := s.hub.totals().rooms; rooms != 0 || s.missed() != 0 {
			s.t.Errorf("%d rooms, %d users missed, want none", rooms, s.missed())
		}
		carl := s.join("carl")
		dora := s.join("dora")
		dora.die()
		carl.die() // the last one dies too
		if rooms := s.hub.totals().rooms; rooms != 0 || s.missed() != 0 {
			s.t.Errorf("%d rooms, %d users missed, want none", rooms, s.missed())
		}
		late := s.join("late")
		time.Sleep(2 * grace)
		late.wantLeaves()
	})
}

func TestByDefaultNobodyIsMissed(t *testing.T) {
	inLeaveBubble(t, func(c *Config) { c.WebSocket.AnnounceLeaveSeconds = 0 }, func(s *pipeServer, bob *pipeClient) {
		s.join("anna").die()
		if s.missed() != 0 {
			s.t.Error("the server remembers who died")
		}
		for _, sh := range s.hub.shards {
			if sh.missing != nil {
				s.t.Error("a shard has a list of those who died")
			}
		}
		time.Sleep(time.Hour)
		bob.wantLeaves()
	})
}

func TestAReloadSwitchesLeavesOnAndOff(t *testing.T) {
	inLeaveBubble(t, nil, func(s *pipeServer, bob *pipeClient) {
		announce := func(after time.Duration) {
			cfg := *s.cfg
			cfg.WebSocket.AnnounceLeaveSeconds = after.Seconds()
			if err := s.Reload(&cfg); err != nil {
				s.t.Fatal(err)
			}
		}
		s.join("anna").die()
		announce(0)
		if s.missed() != 0 {
			s.t.Error("the server remembers who died")
		}
		s.join("carl").die()
		announce(grace)
		time.Sleep(2 * grace)
		bob.wantLeaves()
		s.join("dora").die()
		announce(2 * grace) // what was promised before stays
		time.Sleep(grace + tickInterval)
		bob.wantLeaves("dora")
	})
}

// At the end everybody is told by the close code, and dials another server: no tile is to vanish meanwhile.
func TestADrainAnnouncesNobody(t *testing.T) {
	inLeaveBubble(t, func(c *Config) { c.WebSocket.AnnounceLeaveSeconds, c.Server.DrainSeconds = 0.5, 4 }, func(s *pipeServer, bob *pipeClient) {
		s.join("anna").die() // a moment before
		for i := range 40 {
			s.join(fmt.Sprint("user ", i))
		}
		carl, ear := s.join("carl"), s.join("ear") // the last to be sent away
		s.stop()
		time.Sleep(time.Second)
		carl.die() // before it was sent away
		if err := <-s.ended; err != nil {
			s.t.Error(err)
		}
		if got := ear.got(); got[len(got)-1] != "close 1001 going_away" || ear.when(opClose)[0] < 3*time.Second {
			s.t.Errorf("the ear did not hear the end: %q", got)
		}
		ear.wantLeaves()
		bob.wantLeaves()
		s.ended <- nil // for the bubble's own stop
	})
}

// A flood of deaths is remembered up to a bound.
func TestThoseWhoDiedAreBounded(t *testing.T) {
	inLeaveBubble(t, nil, func(s *pipeServer, bob *pipeClient) {
		anna, carl := s.join("anna"), s.join("carl")
		s.inShard("room", func(sh *shard) { sh.missed += maxMissed - 1 })
		anna.die()
		carl.die()
		s.inShard("room", func(sh *shard) { sh.missed -= maxMissed - 1 })
		if s.missed() != 1 {
			s.t.Errorf("%d are missed, want anna alone", s.missed())
		}
		time.Sleep(grace + tickInterval)
		bob.wantLeaves("anna")
	})
}

// Whatever users do, in whatever order, the room hears what a list of all sockets and deaths would say.
func TestLeavesAgreeWithANaiveModel(t *testing.T) {
	for seed := range uint64(20) {
		inLeaveBubble(t, nil, func(s *pipeServer, bob *pipeClient) {
			dice := rand.New(rand.NewPCG(seed, 0))
			sockets, died := make(map[string][]*pipeClient), make(map[string]time.Duration)
			var want, moves []string
			for range 120 {
				user := string(rune('p' + dice.IntN(3)))
				open := sockets[user]
				switch move := dice.IntN(4); {
				case move == 0 || len(open) == 0:
					sockets[user] = append(open, s.join(user))
					delete(died, user)
					moves = append(moves, "join "+user)
				default:
					i := dice.IntN(len(open))
					c := open[i]
					sockets[user] = slices.Delete(open, i, i+1)
					switch move {
					case 1:
						c.send(`{"type":"unsubscribe","channel":"room"}`)
						moves = append(moves, "unsubscribe "+user)
					case 2:
						c.write(maskedFrame(finBit|opClose, nil))
						moves = append(moves, "close "+user)
					case 3:
						c.die()
						moves = append(moves, "die "+user)
						if len(sockets[user]) == 0 {
							died[user] = s.since()
						}
					}
				}
				// Deadlines are looked at once a second; no sum of these steps falls into the second behind the grace.
				time.Sleep(time.Duration(1+dice.IntN(4)) * 8100 * time.Millisecond)
				var overdue []string
				for user, at := range died {
					if s.since()-at >= grace {
						overdue = append(overdue, user)
					}
				}
				slices.SortFunc(overdue, func(a, b string) int { return cmp.Compare(died[a], died[b]) })
				for _, user := range overdue {
					delete(died, user)
				}
				want = append(want, overdue...)
			}
			got := bob.leaves()
			if len(want) == 0 {
				s.t.Fatal("nobody died")
			}
			if !slices.Equal(got, want) {
				s.t.Errorf("seed %d: left are %q\nwant %q\nafter %q", seed, got, want, moves)
			}
			if err := s.ConsistencyCheck(); err != nil {
				s.t.Error(err)
			}
		})
	}
}

// What is kept of those who died is compared, and damage to it is found.
func TestConsistencyCheckFindsDamageToWhoIsMissed(t *testing.T) {
	inLeaveBubble(t, nil, func(s *pipeServer, bob *pipeClient) {
		s.join("anna").die()
		inRoom := func(change func(*shard)) func() { return func() { s.inShard("room", change) } }
		for _, row := range []struct {
			name, finding   string
			damage, restore func()
		}{
			{"a user counted twice", "2 are counted", inRoom(func(sh *shard) { sh.missed++ }), inRoom(func(sh *shard) { sh.missed-- })},
			{"a room not listed", "listed among those that miss any", inRoom(func(sh *shard) { delete(sh.missing, "room") }), inRoom(func(sh *shard) { sh.missing["room"] = sh.rooms["room"] })},
			{"a room that is not there", "is not there", inRoom(func(sh *shard) { sh.missing["nowhere"] = newRoom("nowhere") }), inRoom(func(sh *shard) { delete(sh.missing, "nowhere") })},
			{"somebody missed who is there", "who is there", inRoom(func(sh *shard) { sh.rooms["room"].missed["bob"] = time.Now().Add(time.Hour); sh.missed++ }),
				inRoom(func(sh *shard) { delete(sh.rooms["room"].missed, "bob"); sh.missed-- })},
			{"somebody missed while nobody is announced", "announced after 0s", inRoom(func(sh *shard) { none := *sh.hubRules; none.announce = 0; sh.hubRules = &none }),
				inRoom(func(sh *shard) { sh.hubRules = sh.latest.Load() })},
		} {
			row.damage()
			if err := s.ConsistencyCheck(); err == nil || !strings.Contains(err.Error(), row.finding) {
				t.Errorf("%s: the check says %v, want %q", row.name, err, row.finding)
			}
			row.restore()
			if err := s.ConsistencyCheck(); err != nil {
				t.Fatalf("%s: after the repair: %v", row.name, err)
			}
		}
	})
}
