package main

import "time"

// S1: connections that are subscribed and say nothing.
const (
	idleMembers = 50 // in each room
	// settle is how long the server may rest after connecting before its memory is read.
	settle = 8 * time.Second
)

// idle connects up to each of the numbers in steps, and measures the server's memory there.
func idle(t *target, steps []int) ([]result, error) {
	var results []result
	var fleets []*fleet
	defer func() {
		for _, f := range fleets {
			f.close()
		}
	}()
	rss0, pss0 := memoryOf(t.pid)
	own0 := askMemory(t)
	connected := 0
	for _, step := range steps {
		rooms := (step - connected + idleMembers - 1) / idleMembers
		if rooms <= 0 {
			continue
		}
		stop := startMeter(t.pid)
		f, err := connect(t, shape{rooms: rooms, members: idleMembers}, func(m *member, payload []byte, _ int64) {
			m.fleet.fault(&m.fleet.faults.garbled, "%s: got %.200q", m.id, payload)
		})
		if err != nil {
			return results, err
		}
		fleets = append(fleets, f)
		added := rooms * idleMembers
		connected += added
		res := measured(t, "S1 connecting", "connections", int64(added), stop())
		progress("%s: %d connected, resting %s", t.name, connected, settle)
		time.Sleep(settle)
		res.Memory = memoryAt(t, connected, rss0, pss0, own0)
		for _, f := range fleets {
			if found := f.faultsSoFar(); found.any() {
				res.Faults = found
			}
		}
		results = append(results, res)
	}
	return results, nil
}

// memoryAt compares the server's memory with that before the first connection.
func memoryAt(t *target, connections int, rss0, pss0 int64, own0 serverMemory) *memoryResult {
	rss, pss := memoryOf(t.pid)
	own := askMemory(t)
	per := func(n float64) float64 { return n / float64(connections) }
	m := &memoryResult{Connections: connections, RSS: rss, RSSPerConn: per(float64(rss - rss0)), PSSPerConn: per(float64(pss - pss0))}
	if own.known {
		m.LivePerConn = per(own.live + own.stack - own0.live - own0.stack)
	}
	return m
}
