// Command story plays a short story of the LetShare protocol against a running server, and tells whether it held:
// a directed message reaches its addressee alone, byte for byte.
//
//	story ws://127.0.0.1:8080/ TOKEN         plays the story
//	story -stay ws://127.0.0.1:8080/ TOKEN   then stays, prints "staying", and wants to be sent away with 1001
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/coder/websocket"
)

// patience bounds the whole story, the stay included.
const patience = 30 * time.Second

const room = "story"

func main() {
	stay := flag.Bool("stay", false, "stay until the server sends its clients away")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: story [-stay] URL TOKEN")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := play(ctx, flag.Arg(0), flag.Arg(1), *stay); err != nil {
		fmt.Fprintf(os.Stderr, "story: %v\n", err)
		os.Exit(1)
	}
}

// play tells the story: anna asks ben, and carl does not hear of it.
func play(ctx context.Context, server, token string, stay bool) error {
	members := make(map[string]*websocket.Conn)
	for _, name := range []string{"anna", "ben", "carl"} {
		member, err := join(ctx, server, token, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		defer member.CloseNow()
		members[name] = member
	}

	const directed = `{"type":"offer","big":12345678901234567890,"from":"anna"}`
	const toAll = `{"type":"discover","from":"anna"}`
	for event, data := range map[string]string{"signal:ben": directed, "signal:all": toAll} {
		message := fmt.Sprintf(`{"type":"publish","channel":%q,"event":%q,"data":%s}`, room, event, data)
		if err := members["anna"].Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			return err
		}
	}
	got := make(map[string]string)
	for range 2 {
		heard, err := read(ctx, members["ben"])
		if err != nil {
			return fmt.Errorf("ben: %w", err)
		}
		got[heard.Event] = string(heard.Data)
	}
	if got["signal:ben"] != directed || got["signal:all"] != toAll {
		return fmt.Errorf("ben heard %v", got)
	}
	heard, err := read(ctx, members["carl"])
	if err != nil {
		return fmt.Errorf("carl: %w", err)
	}
	if heard.Event != "signal:all" || string(heard.Data) != toAll {
		return fmt.Errorf("carl heard %s %s", heard.Event, heard.Data)
	}

	if !stay {
		return nil
	}
	fmt.Println("staying")
	for name, member := range members {
		// Carl would hear here what was not meant for him.
		if _, data, err := member.Read(ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway {
			return fmt.Errorf("%s was not sent away: got %q, %v", name, data, err)
		}
	}
	return nil
}

// frame is what the story looks at in a message of the server.
type frame struct {
	Type  string
	Event string
	Data  json.RawMessage
}

// join connects a member and subscribes it to what the app subscribes to: the room's messages and its own.
func join(ctx context.Context, server, token, name string) (*websocket.Conn, error) {
	address, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	address.RawQuery = url.Values{"token": {token}, "userId": {name}}.Encode()
	member, _, err := websocket.Dial(ctx, address.String(), nil)
	if err != nil {
		return nil, errors.New("the server refused the connection")
	}
	for _, event := range []string{"signal:all", "signal:" + name} {
		message := fmt.Sprintf(`{"type":"subscribe","channel":%q,"event":%q}`, room, event)
		if err := member.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			return nil, err
		}
		answer, err := read(ctx, member)
		if err != nil {
			return nil, err
		}
		if answer.Type != "subscribed" {
			return nil, fmt.Errorf("answered %s to a subscription", answer.Type)
		}
	}
	return member, nil
}

// read returns the next message of the server.
func read(ctx context.Context, member *websocket.Conn) (frame, error) {
	_, data, err := member.Read(ctx)
	if err != nil {
		return frame{}, err
	}
	var f frame
	err = json.Unmarshal(data, &f)
	return f, err
}
