package main

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestAblyKeysAreReadWithTheirCapabilities(t *testing.T) {
	inFolder(t, `{"ably": {
		"keys": [
			{"name": "app.one", "secret": "hidden secret of one"},
			{"name": "app.two", "secret": "hidden secret of two", "capability": {"a:*": ["subscribe", "publish"], "A:*": ["*"]}}
		],
		"namespaces": [{"id": "persisted", "persisted": true}, {"id": "notes", "mutableMessages": true, "persisted": false}],
		"allowed_origins": ["https://app.example"],
		"messages_per_second": 0
	}}`)
	c := mustLoad(t, "config.json")
	keys := []AblyKey{
		{Name: "app.one", Secret: "hidden secret of one"},
		{Name: "app.two", Secret: "hidden secret of two", Capability: map[string][]string{"a:*": {"subscribe", "publish"}, "A:*": {"*"}}},
	}
	if !reflect.DeepEqual(c.Ably.Keys, keys) || !reflect.DeepEqual(c.ablyKeys(), keys) {
		t.Errorf("keys %+v", c.Ably.Keys)
	}
	if want := []AblyNamespace{{ID: "persisted", Persisted: true}, {ID: "notes", MutableMessages: true}}; !reflect.DeepEqual(c.Ably.Namespaces, want) {
		t.Errorf("namespaces %+v", c.Ably.Namespaces)
	}
	var out bytes.Buffer
	c.Print(&out)
	for _, line := range []string{
		`ably.keys = (set, 2 values: "app.one", "app.two")  # config.json:2`,
		`ably.namespaces = [{"id":"persisted","persisted":true,"mutableMessages":false},{"id":"notes","persisted":false,"mutableMessages":true}]  # config.json:6`,
		`ably.enabled = true  # default`,
		`ably.messages_per_second = 0  # config.json:8`,
	} {
		if !strings.Contains(out.String(), line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if strings.Contains(out.String(), "hidden") {
		t.Error("a secret is shown")
	}
}

func TestAblyKeysCanComeFromTheEnvironment(t *testing.T) {
	const text = `[{"name": "app.env", "secret": "0123456789abcdef", "capability": {"*": ["publish"]}}]`
	inFolder(t, `{"ably": {"keys": [{"name": "app.file", "secret": ""}]}}`)
	write(t, "keys.json", "\ufeff"+text+"\n")
	want := []AblyKey{{Name: "app.env", Secret: "0123456789abcdef", Capability: map[string][]string{"*": {"publish"}}}}
	for _, pair := range [][]string{{"LETSHARE_ABLY_KEYS", text}, {"LETSHARE_ABLY_KEYS_FILE", "keys.json"}} {
		c := mustLoad(t, "config.json", append(pair, "MODE", "production", "LETSHARE_JWT_SECRET", goodSecret, "LETSHARE_ABLY_NAMESPACES", `[{"id":"p","persisted":true}]`)...)
		if !reflect.DeepEqual(c.Ably.Keys, want) || len(c.Ably.Namespaces) != 1 {
			t.Errorf("%s: keys %+v, namespaces %+v", pair[0], c.Ably.Keys, c.Ably.Namespaces)
		}
	}
}

func TestAblyIsSpokenWhereThereAreKeys(t *testing.T) {
	const keys = `[{"name": "app.env", "secret": "0123456789abcdef"}]`
	production := []string{"MODE", "production", "LETSHARE_JWT_SECRET", goodSecret}
	for _, row := range []struct {
		pairs []string
		want  bool
	}{
		{nil, true},
		{[]string{"LETSHARE_ABLY_ENABLED", "false"}, false},
		{production, false},
		{append([]string{"LETSHARE_ABLY_KEYS", keys}, production...), true},
		{append([]string{"LETSHARE_ABLY_KEYS", keys, "LETSHARE_ABLY_ENABLED", "false"}, production...), false},
	} {
		if got := mustLoad(t, "", row.pairs...).Ably.Enabled; got != row.want {
			t.Errorf("%q: %v, want %v", row.pairs, got, row.want)
		}
	}
	wantError(t, `environment variable LETSHARE_ABLY_ENABLED: ably.enabled = true: needs ably.keys: without a key nobody can connect; set keys, or remove ably.enabled`,
		"", append([]string{"LETSHARE_ABLY_ENABLED", "true"}, production...)...)
}

// Each of these files is refused with exactly these lines.
func TestWrongAblyFiles(t *testing.T) {
	const fix = "; set a random one (letshare token secret prints one)"
	development := ablyDevelopmentSecret(sampleSecretPrefix)
	for _, test := range []struct{ name, file, want string }{
		{"keys of another type", `{"ably": {"keys": "app.one:hidden"}}`, `config.json:1: ably.keys = (a string): must be a list of objects, like [{"name": "…"}]`},
		{"keys as an object", `{"ably": {"keys": {"app.one": "hidden"}}}`, `config.json:1: ably.keys = (an object): must be a list of objects, like [{"name": "…"}]`},
		{"a key as a text", "{\"ably\": {\"keys\": [\n\"app.one:hidden\"]}}", `config.json:2: ably.keys[0] = (a string): must be an object in braces, like {"name": …}`},
		{"unknown member", "{\"ably\": {\"keys\": [{\"name\": \"a.b\",\n\"key\": \"hidden\", \"secret\": \"s\"}]}}", `config.json:2: ably.keys[0].key: unknown key; in ably.keys[0] there are name, secret, capability, revocableTokens`},
		{"member in another case", `{"ably": {"keys": [{"Name": "a.b", "secret": "s"}]}}`, `config.json:1: ably.keys[0].Name: unknown key; write it as "name"`},
		{"member twice", "{\"ably\": {\"keys\": [{\"name\": \"a.b\", \"secret\": \"hidden\",\n\"secret\": \"hidden\"}]}}", `config.json:2: ably.keys[0].secret: stands here for the second time, after line 1; remove one of them`},
		{"secret of another type", `{"ably": {"keys": [{"name": "a.b", "secret": 123456}]}}`, `config.json:1: ably.keys[0].secret = (a number): must be a string in quotes`},
		{"null", `{"ably": {"keys": [null], "namespaces": null}}`, "config.json:1: ably.keys[0] = (null): must be an object in braces, like {\"name\": …}\n" +
			`config.json:1: ably.namespaces = null: must be a list of objects, like [{"id": "…"}]`},
		{"capability as a text", `{"ably": {"keys": [{"name": "a.b", "secret": "s", "capability": "*"}]}}`, `config.json:1: ably.keys[0].capability = (a string): must be an object of lists, like {"*": ["subscribe"]}`},
		{"operations as a text", "{\"ably\": {\"keys\": [{\"name\": \"a.b\", \"secret\": \"s\", \"capability\": {\n\"a\": \"publish\"}}]}}", `config.json:2: ably.keys[0].capability["a"] = "publish": must be a list of strings, like ["one", "two"]`},
		{"operation of another type", `{"ably": {"keys": [{"name": "a.b", "secret": "s", "capability": {"a": ["publish", 1]}}]}}`, `config.json:1: ably.keys[0].capability["a"][1] = 1: must be a string in quotes`},
		{"resource twice", "{\"ably\": {\"keys\": [{\"name\": \"a.b\", \"secret\": \"s\", \"capability\": {\"a\": [\"publish\"],\n\"a\": [\"*\"]}}]}}", `config.json:2: ably.keys[0].capability["a"]: stands here for the second time; remove one of them`},
		{"switch of another type", `{"ably": {"namespaces": [{"id": "a", "persisted": "yes"}]}}`, `config.json:1: ably.namespaces[0].persisted = (a string): must be true or false, without quotes`},
		{"unknown member of a namespace", `{"ably": {"namespaces": [{"id": "a", "pushEnabled": true}]}}`, `config.json:1: ably.namespaces[0].pushEnabled: unknown key; in ably.namespaces[0] there are id, persisted, mutableMessages`},
		{"unknown key", `{"ably": {"key": []}}`, `config.json:1: ably.key: unknown key; in ably there are enabled, keys, namespaces, allowed_origins, max_message_bytes, messages_per_second, max_channels_per_connection, max_attachments_per_channel, max_presence_members, connection_state_seconds, history_seconds, persisted_seconds, journal`},

		{"a name with the secret in it", "{\"ably\": {\"keys\": [{\"secret\": \"s\",\n\"name\": \"app.one:hidden\"}]}}", `config.json:2: ably.keys[0].name = "app.one:…": must be an app and a key with a point between, like myapp.key1, of letters, digits, _ and -; the secret stands in secret`},
		{"no name", "{\"ably\": {\"keys\": [\n{\"secret\": \"s\"}]}}", `config.json:2: ably.keys[0].name = "": must be an app and a key with a point between, like myapp.key1, of letters, digits, _ and -; the secret stands in secret`},
		{"two points", `{"ably": {"keys": [{"secret": "s", "name": "a.b.c"}]}}`, `config.json:1: ably.keys[0].name = "a.b.c": must be an app and a key with a point between, like myapp.key1, of letters, digits, _ and -; the secret stands in secret`},
		{"one name twice", "{\"ably\": {\"keys\": [{\"secret\": \"s\", \"name\": \"a.b\"},\n{\"secret\": \"s\", \"name\": \"a.b\"}]}}", `config.json:2: ably.keys[1].name = "a.b": is the name of ably.keys[0], too; rename or remove one of them`},
		{"no secret", "{\"ably\": {\"keys\": [\n{\"name\": \"a.b\"}]}}", `config.json:2: ably.keys[0].secret = (unset): is missing` + fix},
		{"unknown operation", "{\"ably\": {\"keys\": [{\"name\": \"a.b\", \"secret\": \"hidden\",\n\"capability\": {\"a\": [\"write\"]}}]}}", `config.json:2: ably.keys[0].capability = {…}: invalid capability: an operation is unknown; write it like {"*": ["*"]} or {"chat:*": ["publish", "subscribe"]}`},
		{"nothing allowed", `{"ably": {"keys": [{"name": "a.b", "secret": "hidden", "capability": {}}]}}`, `config.json:1: ably.keys[0].capability = {}: allows nothing; leave it out to allow everything, or remove the key`},
		{"production", "{\"mode\": \"production\", \"jwt\": {\"secret\": \"" + goodSecret + "\"}, \"ably\": {\"keys\": [{\"name\": \"a.b\", \"secret\": \"hidden\"},\n" +
			"{\"name\": \"a.c\", \"secret\": \"letshare-jwt-secret-key-2024-production\"},\n{\"name\": \"a.d\", \"secret\": \"" + development + "\"},\n{\"name\": \"letshare.dev\", \"secret\": \"0123456789abcdef\"}]}}",
			"config.json:1: ably.keys[0].secret = (set, 6 bytes): is shorter than 16 bytes, which production mode does not take" + fix + "\n" +
				"config.json:2: ably.keys[1].secret = (set, 39 bytes): is a published sample, with which anybody can connect" + fix + "\n" +
				"config.json:3: ably.keys[2].secret = (set, 32 bytes): is a published sample, with which anybody can connect" + fix + "\n" +
				`config.json:4: ably.keys[3].name = "letshare.dev": is the development key's; choose another one`},
		{"a namespace with a colon", `{"ably": {"namespaces": [{"id": "a:"}]}}`, `config.json:1: ably.namespaces[0].id = "a:": must be what stands before the first colon of a channel's name, 1 to 128 bytes without : [ ] *`},
		{"one namespace twice", `{"ably": {"namespaces": [{"id": "a"}, {"id": "a"}]}}`, `config.json:1: ably.namespaces[1].id = "a": is the id of ably.namespaces[0], too; remove one of them`},
		{"origin", `{"ably": {"allowed_origins": ["app.example"]}}`, `config.json:1: ably.allowed_origins[0] = "app.example": an origin is scheme://host[:port]: did you mean "https://app.example"`},
		{"no message", `{"ably": {"max_message_bytes": 0}}`, `config.json:1: ably.max_message_bytes = 0: must be from 1 to 1073676288; this one cannot be switched off`},
		{"negative", `{"ably": {"max_presence_members": -1}}`, `config.json:1: ably.max_presence_members = -1: must be from 0 to 1073676288; 0 means no limit`},
		{"no time to come back", `{"ably": {"connection_state_seconds": 0}}`, `config.json:1: ably.connection_state_seconds = 0: must be from 0.1 to 86400; Ably's figure is 120`},
		{"more than a year", `{"ably": {"persisted_seconds": 31536001}}`, `config.json:1: ably.persisted_seconds = 31536001: must be from 0 to 31536000; 0 keeps nothing`},
		{"journal in a file", `{"ably": {"journal": "config.json"}}`, `config.json:1: ably.journal = "config.json": is a file; give the path of a directory, or "" to keep messages in memory alone`},
	} {
		t.Run(test.name, func(t *testing.T) {
			inFolder(t, test.file)
			wantError(t, test.want, "config.json")
			if _, err := LoadConfig("config.json", environment()); strings.Contains(err.Error(), development) {
				t.Errorf("the error shows a secret: %s", err)
			}
		})
	}
}

func TestWrongAblyEnvironments(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "keys", "[\n{\"name\": \"app.one\",\n\"secret\": 5}]\n")
	write(t, "empty", "\n")
	for _, test := range []struct {
		want  string
		pairs []string
	}{
		{`environment variable LETSHARE_ABLY_KEYS: ably.keys = (a string): must be a list of objects, like [{"name": "…"}]`, []string{"LETSHARE_ABLY_KEYS", `"app.one:hidden"`}},
		{`environment variable LETSHARE_ABLY_KEYS: not valid JSON: invalid character 'a' looking for beginning of value; correct it here or in the line before`, []string{"LETSHARE_ABLY_KEYS", `app.one:hidden`}},
		{`environment variable LETSHARE_ABLY_KEYS: text follows the closing bracket of ably.keys; remove it`, []string{"LETSHARE_ABLY_KEYS", `[] []`}},
		{`environment variable LETSHARE_ABLY_KEYS: ably.keys: the value is empty; write at least []`, []string{"LETSHARE_ABLY_KEYS", ` `}},
		{`environment variable LETSHARE_ABLY_KEYS: ably.keys[0].secret = (unset): is missing; set a random one (letshare token secret prints one)`, []string{"LETSHARE_ABLY_KEYS", `[{"name":"a.b"}]`}},
		{`environment variable LETSHARE_ABLY_KEYS_FILE (keys:3): ably.keys[0].secret = (a number): must be a string in quotes`, []string{"LETSHARE_ABLY_KEYS_FILE", "keys"}},
		{`environment variable LETSHARE_ABLY_KEYS_FILE (empty): the value of ably.keys is missing: the file is empty; write the secret into it, or unset the variable`, []string{"LETSHARE_ABLY_KEYS_FILE", "empty"}},
		{`environment variables LETSHARE_ABLY_KEYS and LETSHARE_ABLY_KEYS_FILE: ably.keys is given twice; unset one of them`, []string{"LETSHARE_ABLY_KEYS", "[]", "LETSHARE_ABLY_KEYS_FILE", "keys"}},
		{`environment variable LETSHARE_ABLY_NAMESPACES: ably.namespaces[0].persisted = (a number): must be true or false, without quotes`, []string{"LETSHARE_ABLY_NAMESPACES", `[{"id":"a","persisted":1}]`}},
	} {
		wantError(t, test.want, "", test.pairs...)
	}
}

func TestAReloadTakesNewAblyKeys(t *testing.T) {
	old, next := DefaultConfig(), DefaultConfig()
	next.Ably.Keys = []AblyKey{{Name: "a.b", Secret: "s"}}
	next.Ably.Journal = "elsewhere"
	merged, changed, restart := merge(&old, &next)
	if !reflect.DeepEqual(changed, []string{"ably.keys"}) || !reflect.DeepEqual(restart, []string{"ably.journal"}) {
		t.Errorf("changed %q, restart %q", changed, restart)
	}
	if len(merged.Ably.Keys) != 1 || merged.Ably.Journal != "" {
		t.Errorf("merged %+v", merged.Ably)
	}
}
