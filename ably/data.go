package ably

// DataKind says what the bytes of a Data are.
type DataKind uint8

// DataNone has no bytes. DataText is UTF-8. DataBinary is what msgpack carries as bin and JSON as base64 text.
// DataJSON is a JSON value, neither string nor null: clients of REST send objects bare.
const (
	DataNone DataKind = iota
	DataText
	DataBinary
	DataJSON
)

// Data is the payload of a message. It is never changed on its way but for its form in the reader's format.
type Data struct {
	Kind  DataKind
	Bytes []byte
}
