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

// Append writes the message at the end of dst, as the body of an answer has it.
func (m *Message) Append(dst []byte, f Format) []byte {
	w := writer{format: f, buf: slices.Grow(dst, m.size())}
	m.write(&w)
	return w.buf
}

// DecodeAnnotations reads the body of annotations by REST: an array of them, or one alone. It keeps nothing of body.
func DecodeAnnotations(f Format, body []byte) (list []Annotation, err error) {
	r := newReader(f, body)
	if r.kind() == kindList {
		list = r.annotations()
	} else {
		list = make([]Annotation, 1)
		list[0].read(&r)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return list, nil
}

// AppendAnnotations writes an array of annotations at the end of dst.
func AppendAnnotations(dst []byte, f Format, list []Annotation) []byte {
	size := 8
	for i := range list {
		size += list[i].size()
	}
	w := writer{format: f, buf: slices.Grow(dst, size)}
	w.annotations(list)
	return w.buf
}
