package ably

import (
	"bytes"
	"math"
	"math/bits"
	"strconv"
)

// number is a number of either format. A whole one within 64 bits is exact.
type number struct {
	whole    bool
	negative bool    // whole: below 0
	size     uint64  // whole: without the sign
	f        float64 // not whole
}

func wholeNumber(i int64) number {
	if i < 0 {
		return number{whole: true, negative: true, size: -uint64(i)}
	}
	return number{whole: true, size: uint64(i)}
}

// parseNumber reads a number of JSON.
func parseNumber(token []byte) number {
	digits, negative := bytes.CutPrefix(token, []byte("-"))
	size, ok := parseDigits(digits)
	if ok && (!negative || size > 0 && size <= 1<<63) { // -0 is not 0 in JavaScript
		return number{whole: true, negative: negative, size: size}
	}
	f, _ := strconv.ParseFloat(string(token), 64) // out of range it is infinite, as in JavaScript
	return number{f: f}
}

// parseDigits reads a number that is nothing but digits and fits into 64 bits. strconv would make an error of others.
func parseDigits(digits []byte) (size uint64, ok bool) {
	for _, c := range digits {
		high, low := bits.Mul64(size, 10)
		sum, carry := bits.Add64(low, uint64(c-'0'), 0)
		if c < '0' || c > '9' || high|carry != 0 {
			return 0, false
		}
		size = sum
	}
	return size, len(digits) > 0
}

// int64 returns the number if it is whole and fits; 3.0 is whole.
func (n number) int64() (int64, bool) {
	const exact = 1 << 53 // above, floats have gaps
	switch {
	case !n.whole:
		if n.f != math.Trunc(n.f) || math.Abs(n.f) > exact {
			return 0, false
		}
		return int64(n.f), true
	case n.negative:
		return -int64(n.size), n.size <= 1<<63
	}
	return int64(n.size), n.size <= math.MaxInt64
}

// appendJSON writes the number as JavaScript would. JSON has no form for infinity: that is null.
func (n number) appendJSON(dst []byte) []byte {
	if n.whole {
		if n.negative {
			dst = append(dst, '-')
		}
		return strconv.AppendUint(dst, n.size, 10)
	}
	if math.IsNaN(n.f) || math.IsInf(n.f, 0) {
		return append(dst, "null"...)
	}
	size := math.Abs(n.f)
	if size == 0 || size >= 1e-6 && size < 1e21 {
		return strconv.AppendFloat(dst, n.f, 'f', -1, 64)
	}
	dst = strconv.AppendFloat(dst, n.f, 'e', -1, 64)
	if end := len(dst) - 4; string(dst[end:end+3]) == "e-0" { // JavaScript writes 1e-7, not 1e-07
		dst = append(dst[:end+2], dst[end+3])
	}
	return dst
}
