// Package ably is the codec of the Ably realtime protocol: its messages to and from JSON and msgpack.
package ably

import "errors"

var errTodo = errors.New("not decoded yet")

// Decode reads one protocol message.
func Decode(f Format, p []byte) (ProtocolMessage, error) { return ProtocolMessage{}, errTodo }

// Append writes the message at the end of dst.
func (m *ProtocolMessage) Append(dst []byte, f Format) []byte { return dst }

// DecodeMessages reads the body of a publish by REST: one message or an array of them.
func DecodeMessages(f Format, body []byte) (list []Message, single bool, err error) {
	return nil, false, errTodo
}

// AppendMessages writes an array of messages at the end of dst.
func AppendMessages(dst []byte, f Format, list []Message) []byte { return dst }

// AppendPresence writes an array of presence messages at the end of dst.
func AppendPresence(dst []byte, f Format, list []PresenceMessage) []byte { return dst }

// AppendAnnotations writes an array of annotations at the end of dst.
func AppendAnnotations(dst []byte, f Format, list []Annotation) []byte { return dst }

// Object is a map that keeps the order of its fields.
type Object []Field

// Field is one key of an Object with its value.
type Field struct {
	Key   string
	Value any
}

// DecodeValue reads a value of any shape.
func DecodeValue(f Format, p []byte) (any, error) { return nil, errTodo }

// AppendValue writes a value at the end of dst.
func AppendValue(dst []byte, f Format, v any) []byte { return dst }
