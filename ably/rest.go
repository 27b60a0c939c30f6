package ably

import "slices"

// DecodeMessages reads the body of a publish by REST: an array of messages, or one alone, which single says.
// It keeps nothing of body.
func DecodeMessages(f Format, body []byte) (list []Message, single bool, err error) {
	r := newReader(f, body)
	if single = r.kind() != kindList; single {
		list = make([]Message, 1)
		list[0].read(&r)
	} else {
		list = r.messages()
	}
	if err := r.end(); err != nil {
		return nil, single, err
	}
	return list, single, nil
}

// AppendMessages writes an array of messages at the end of dst.
func AppendMessages(dst []byte, f Format, list []Message) []byte {
	size := 8
	for i := range list {
		size += list[i].size()
	}
	w := writer{format: f, buf: slices.Grow(dst, size)}
	w.messages(list)
	return w.buf
}

// AppendPresence writes an array of presence messages at the end of dst.
func AppendPresence(dst []byte, f Format, list []PresenceMessage) []byte {
	size := 8
	for i := range list {
		size += list[i].size()
	}
	w := writer{format: f, buf: slices.Grow(dst, size)}
	w.presence(list)
	return w.buf
}
