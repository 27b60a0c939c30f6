package main

import (
	"slices"
	"strconv"
	"strings"

	"letshare/ably"
)

// annotationSummary is what the annotations of one message come to, by their types: pure state of the room, touched by its
// shard alone. The zero value is that of a message without any.
type annotationSummary struct {
	kinds   []*annotationKind // by type, in the order of the text
	names   int               // how many of them are counted, in all types
	clients int               // how many clients are remembered, in all types and names
	size    int               // bytes that it costs
}

// annotationKind is what annotations of one type come to.
type annotationKind struct {
	kind   string // such as reaction:distinct.v1
	method string // such as distinct.v1
	names  []*annotationCount
}

// annotationCount is what annotations of one name come to; for total.v1 and flag.v1, which know no names, all of a type.
type annotationCount struct {
	name         string
	total        int64
	unidentified int64            // of the total, by clients without a clientId
	clients      []string         // who has a part in it, in the order of coming
	shares       map[string]int64 // how large that part is: 1 but for multiple.v1
}

// The ways of counting that an annotation's type names after its last colon.
const (
	annotationTotal    = "total.v1"    // how many
	annotationFlag     = "flag.v1"     // which clients
	annotationDistinct = "distinct.v1" // which clients, for each name
	annotationUnique   = "unique.v1"   // which clients, for each name: each for one of them
	annotationMultiple = "multiple.v1" // how often by each client, for each name
)

// annotationMethod is the way of counting of a type, "" for one that is not counted. Not ok: it is no type.
func annotationMethod(kind string) (method string, ok bool) {
	label, method, counted := strings.Cut(kind, ":")
	if label == "" || len(kind) > maxAnnotationNameBytes {
		return "", false
	}
	switch method {
	case annotationTotal, annotationFlag, annotationDistinct, annotationUnique, annotationMultiple:
		return method, true
	}
	return "", !counted
}

// named reports whether a way of counting tells names apart.
func namedAnnotations(method string) bool {
	return method == annotationDistinct || method == annotationUnique || method == annotationMultiple
}

// full reports whether further annotations have no room.
func (s *annotationSummary) full(list []ably.Annotation) bool {
	creates := 0
	for i := range list {
		if list[i].Action == ably.AnnotationCreate {
			creates++
		}
	}
	return creates > 0 && (s.clients+creates > maxAnnotationClients || s.names+creates > maxAnnotationNames && s.newNames(list) > 0)
}

// newNames is how many of the annotations, at the most, are of a type and name that nobody has used yet.
func (s *annotationSummary) newNames(list []ably.Annotation) (n int) {
	for i := range list {
		a := &list[i]
		method, _ := annotationMethod(a.Type)
		if k := s.find(a.Type); a.Action == ably.AnnotationCreate && method != "" && (k == nil || k.find(countedName(method, a)) == nil) {
			n++
		}
	}
	return n
}

// find returns what is counted of a type, nil if nothing is.
func (s *annotationSummary) find(kind string) *annotationKind {
	if i, found := s.search(kind); found {
		return s.kinds[i]
	}
	return nil
}

func (s *annotationSummary) search(kind string) (int, bool) {
	return slices.BinarySearchFunc(s.kinds, kind, func(k *annotationKind, kind string) int { return strings.Compare(k.kind, kind) })
}

// find returns what is counted of a name, nil if nothing is.
func (k *annotationKind) find(name string) *annotationCount {
	if i := slices.IndexFunc(k.names, func(c *annotationCount) bool { return c.name == name }); i >= 0 {
		return k.names[i]
	}
	return nil
}

// countedName is the name that an annotation counts for.
func countedName(method string, a *ably.Annotation) string {
	if namedAnnotations(method) {
		return a.Name.V
	}
	return ""
}

// apply counts an annotation, or takes back what its client has a part in.
func (s *annotationSummary) apply(a *ably.Annotation) {
	method, _ := annotationMethod(a.Type)
	if method == "" {
		return
	}
	name := countedName(method, a)
	if a.Action == ably.AnnotationDelete {
		if k := s.find(a.Type); k != nil {
			if c := k.find(name); c != nil {
				s.takeBack(k, c, a.ClientID)
			}
		}
		return
	}
	k := s.open(a.Type, method)
	if method == annotationUnique {
		for _, c := range slices.Clone(k.names) {
			if c.name != name {
				s.takeBack(k, c, a.ClientID)
			}
		}
		k = s.open(a.Type, method) // it is gone where that was all of it
	}
	c := k.find(name)
	if c == nil {
		c = &annotationCount{name: name}
		k.names = append(k.names, c)
		s.names++
		s.size += ablyEntryBytes + len(name)
	}
	s.count(c, method, a)
}

// open returns what is counted of a type.
func (s *annotationSummary) open(kind, method string) *annotationKind {
	i, found := s.search(kind)
	if !found {
		s.kinds = slices.Insert(s.kinds, i, &annotationKind{kind: kind, method: method})
		s.size += ablyEntryBytes + len(kind)
	}
	return s.kinds[i]
}

// count adds an annotation.
func (s *annotationSummary) count(c *annotationCount, method string, a *ably.Annotation) {
	switch {
	case method == annotationTotal:
		c.total++
		return
	case method == annotationMultiple && a.ClientID == "":
		c.total += annotationShare(a)
		c.unidentified += annotationShare(a)
		return
	}
	share, known := c.shares[a.ClientID]
	if !known {
		c.clients = append(c.clients, a.ClientID)
		s.clients++
		s.size += annotationClientBytes + len(a.ClientID)
	}
	if c.shares == nil {
		c.shares = make(map[string]int64)
	}
	more := annotationShare(a)
	if method != annotationMultiple {
		more = 1 - share
	}
	c.shares[a.ClientID] = share + more
	c.total += more
}

// annotationShare is how often an annotation counts.
func annotationShare(a *ably.Annotation) int64 {
	if a.Count.OK {
		return a.Count.V
	}
	return 1
}

// takeBack removes a client's part, and what is empty then. Of a total, which knows no clients, one is taken.
func (s *annotationSummary) takeBack(k *annotationKind, c *annotationCount, clientID string) {
	if k.method == annotationTotal {
		c.total--
	} else if share, known := c.shares[clientID]; known {
		c.total -= share
		delete(c.shares, clientID)
		c.clients = slices.DeleteFunc(c.clients, func(id string) bool { return id == clientID })
		s.clients--
		s.size -= annotationClientBytes + len(clientID)
	}
	if c.total > 0 {
		return
	}
	k.names = slices.DeleteFunc(k.names, func(other *annotationCount) bool { return other == c })
	s.names--
	s.size -= ablyEntryBytes + len(c.name)
	if len(k.names) == 0 {
		s.kinds = slices.DeleteFunc(s.kinds, func(other *annotationKind) bool { return other == k })
		s.size -= ablyEntryBytes + len(k.kind)
	}
}

// json is the summary as a message carries it: {"summary":{…}}. Where it would be too long it names some of the clients only.
func (s *annotationSummary) json() []byte {
	object := make(ably.Object, 0, len(s.kinds))
	for _, k := range s.kinds {
		object = append(object, ably.Field{Key: k.kind, Value: k.object(maxSummaryClientBytes / max(1, s.names))})
	}
	return ably.AppendValue(nil, ably.JSON, ably.Object{{Key: "summary", Value: object}})
}

// object is what clients are told of a type; its names list clients of so many bytes each.
func (k *annotationKind) object(room int) ably.Object {
	if !namedAnnotations(k.method) {
		return k.names[0].object(k.method, room)
	}
	object := make(ably.Object, 0, len(k.names))
	for _, c := range k.names {
		object = append(object, ably.Field{Key: c.name, Value: c.object(k.method, room)})
	}
	return object
}

// object is what clients are told of a name.
func (c *annotationCount) object(method string, room int) ably.Object {
	object := ably.Object{{Key: "total", Value: c.total}}
	if method == annotationTotal {
		return object
	}
	listed := c.listed(room)
	clipped := ably.Field{Key: "clipped", Value: len(listed) < len(c.clients)}
	if method != annotationMultiple {
		return append(object, ably.Field{Key: "clientIds", Value: listed}, clipped)
	}
	shares := make(ably.Object, 0, len(listed))
	for _, id := range listed {
		shares = append(shares, ably.Field{Key: id, Value: c.shares[id]})
	}
	return append(object, ably.Field{Key: "clientIds", Value: shares}, ably.Field{Key: "totalUnidentified", Value: c.unidentified},
		clipped, ably.Field{Key: "totalClientIds", Value: len(c.clients)})
}

// listed are the clients that so many bytes have room for, in the order of coming.
func (c *annotationCount) listed(room int) []string {
	for i, id := range c.clients {
		if room -= len(strconv.Quote(id)) + 8; room < 0 {
			return c.clients[:i]
		}
	}
	return c.clients
}
