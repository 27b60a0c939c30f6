package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ably checks who may speak the Ably protocol, and how much one of them may use.
func (v *validator) ably() {
	a := v.c.Ably
	if a.Enabled && len(a.Keys) == 0 && v.c.Mode == modeProduction {
		v.fail("ably.enabled", "needs ably.keys: without a key nobody can connect; set keys, or remove ably.enabled")
	}
	v.ablyKeys()
	v.ablyNamespaces()
	v.originList("ably.allowed_origins", a.AllowedOrigins)
	for _, bound := range []struct {
		name        string
		n           float64
		least, most float64
		zero        string
	}{
		{"ably.max_message_bytes", float64(a.MaxMessageBytes), 1, maxConfigCount, "this one cannot be switched off"},
		{"ably.messages_per_second", float64(a.MessagesPerSecond), 0, maxConfigCount, "0 means no limit"},
		{"ably.max_channels_per_connection", float64(a.MaxChannelsPerConnection), 0, maxConfigCount, "0 means no limit"},
		{"ably.max_attachments_per_channel", float64(a.MaxAttachmentsPerChannel), 0, maxConfigCount, "0 means no limit"},
		{"ably.max_presence_members", float64(a.MaxPresenceMembers), 0, maxConfigCount, "0 means no limit"},
		{"ably.connection_state_seconds", a.ConnectionStateSeconds, minAblyConnectionState, maxConfigSeconds, "Ably's figure is 120"},
		{"ably.history_seconds", a.HistorySeconds, 0, maxConfigSeconds, "0 keeps nothing"},
		{"ably.persisted_seconds", a.PersistedSeconds, 0, maxAblyPersistedSeconds, "0 keeps nothing"},
	} {
		if !(bound.n >= bound.least && bound.n <= bound.most) {
			v.fail(bound.name, "must be from %s to %s; %s", show(bound.least, false), show(bound.most, false), bound.zero)
		}
	}
	if info, err := os.Stat(a.Journal); a.Journal != "" && err == nil && !info.IsDir() {
		v.fail("ably.journal", "is a file; give the path of a directory, or \"\" to keep messages in memory alone")
	}
}

// failIn notes that a member of a record breaks a rule. value is shown as it stands.
func (v *validator) failIn(list string, i int, member, value, format string, args ...any) {
	element := fmt.Sprintf("%s[%d]", list, i)
	name := element + "." + member
	v.problems = append(v.problems, fmt.Errorf("%s: %s = %s: %s", v.where(name, element, list), name, value, fmt.Sprintf(format, args...)))
}

// ablyKeys checks each API key: its name, its secret, what it allows.
func (v *validator) ablyKeys() {
	const list = "ably.keys"
	if n := len(v.c.Ably.Keys); n > maxAblyKeys {
		v.fail(list, "has %d keys; %d are the most", n, maxAblyKeys)
		return
	}
	first := make(map[string]int)
	for i, k := range v.c.Ably.Keys {
		earlier, twice := first[k.Name]
		if !twice {
			first[k.Name] = i
		}
		switch {
		case !isAblyKeyName(k.Name):
			v.failIn(list, i, "name", showKeyName(k.Name), "must be an app and a key with a point between, like myapp.key1, of letters, digits, _ and -; the secret stands in secret")
		case twice:
			v.failIn(list, i, "name", showKeyName(k.Name), "is the name of ably.keys[%d], too; rename or remove one of them", earlier)
		case k.Name == ablyDevelopmentKey && v.c.Mode == modeProduction:
			v.failIn(list, i, "name", showKeyName(k.Name), "is the development key's; choose another one")
		}
		if problem := v.ablySecretProblem(k.Secret); problem != "" {
			v.failIn(list, i, "secret", show(k.Secret, true), "%s; set a random one (letshare token secret prints one)", problem)
		}
		if _, problem := newAblyKey(k); problem != nil {
			v.failIn(list, i, "capability", `{…}`, `%s; write it like {"*": ["*"]} or {"chat:*": ["publish", "subscribe"]}`, problem.Message)
		} else if k.Capability != nil && len(k.Capability) == 0 {
			v.failIn(list, i, "capability", `{}`, "allows nothing; leave it out to allow everything, or remove the key")
		}
	}
}

// isAblyKeyName says whether s is app.keyId.
func isAblyKeyName(s string) bool {
	app, key, _ := strings.Cut(s, ".")
	for _, c := range []byte(app + key) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return app != "" && key != "" && len(s) <= maxAblyNameBytes
}

// ablySecretProblem says why a key's secret will not do in this mode, or "".
func (v *validator) ablySecretProblem(secret string) string {
	switch {
	case secret == "":
		return "is missing"
	case len(secret) > maxAblySecretBytes:
		return fmt.Sprintf("is longer than %d bytes", maxAblySecretBytes)
	case v.c.Mode != modeProduction:
		return ""
	case isPublishedAblySecret(secret):
		return "is a published sample, with which anybody can connect"
	case len(secret) < minAblySecretBytes:
		return fmt.Sprintf("is shorter than %d bytes, which production mode does not take", minAblySecretBytes)
	}
	return ""
}

// isPublishedAblySecret says whether everybody can know the secret: a sample, or the development key's beside one.
func isPublishedAblySecret(secret string) bool {
	for _, sample := range [...]string{sampleSecretPrefix, sampleSecretPrefix + "-local"} {
		if secret == ablyDevelopmentSecret(sample) {
			return true
		}
	}
	return strings.HasPrefix(secret, sampleSecretPrefix)
}

// ablyNamespaces checks each namespace.
func (v *validator) ablyNamespaces() {
	const list = "ably.namespaces"
	if n := len(v.c.Ably.Namespaces); n > maxAblyNamespaces {
		v.fail(list, "has %d namespaces; %d are the most", n, maxAblyNamespaces)
		return
	}
	first := make(map[string]int)
	for i, n := range v.c.Ably.Namespaces {
		earlier, twice := first[n.ID]
		if !twice {
			first[n.ID] = i
		}
		switch {
		case n.ID == "" || len(n.ID) > maxAblyNameBytes || strings.ContainsAny(n.ID, ":[]*\n"):
			v.failIn(list, i, "id", strconv.Quote(n.ID), "must be what stands before the first colon of a channel's name, 1 to %d bytes without : [ ] *", maxAblyNameBytes)
		case twice:
			v.failIn(list, i, "id", strconv.Quote(n.ID), "is the id of ably.namespaces[%d], too; remove one of them", earlier)
		}
	}
}
