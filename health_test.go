package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// healthAnswer returns a server's handler that answers /health so.
func healthAnswer(code int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" {
			code = http.StatusNotFound
		}
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	})
}

// TestHealthOfAnswers: only 200 with the word "healthy" is healthy, and no answer can print much.
func TestHealthOfAnswers(t *testing.T) {
	for _, c := range []struct {
		code      int
		body, say string // say "" is healthy
	}{
		{200, `{"status":"healthy","uptime":"1s"}`, ""},
		{503, `{"status":"draining"}`, `answered 503, status "draining"`},
		{200, `{"status":"draining"}`, `answered 200, status "draining"`},
		{503, `{"status":"healthy"}`, `answered 503, status "healthy"`},
		{200, `<html>`, "answered 200, not as letshare does"},
		{200, `{"status":"` + strings.Repeat("x", 100) + `"}`, "answered 200, not as letshare does"},
		{200, `{"status":"` + strings.Repeat("x", maxHealthBytes) + `"}`, "answered 200, not as letshare does"},
		{404, ``, "answered 404, not as letshare does"},
	} {
		srv := httptest.NewServer(healthAnswer(c.code, c.body))
		for _, path := range []string{"", "/", "/health"} {
			var stdout, stderr bytes.Buffer
			exit := runHealth(t.Context(), []string{"-url", srv.URL + path + "?token=hidden"}, &stdout, &stderr, noEnvironment)
			wantOut, wantErr, wantExit := "healthy: "+srv.URL+"/health\n", "", 0
			if c.say != "" {
				wantOut, wantErr, wantExit = "", "letshare: unhealthy: "+srv.URL+"/health: "+c.say+"\n", 1
			}
			if exit != wantExit || stdout.String() != wantOut || stderr.String() != wantErr {
				t.Errorf("%d %.40s: exit %d, %q, %q", c.code, c.body, exit, &stdout, &stderr)
			}
		}
		srv.Close()
	}
}

func noEnvironment(string) string { return "" }

// TestHealthAsksTheConfiguredAddress in each form that an address has.
func TestHealthAsksTheConfiguredAddress(t *testing.T) {
	healthy := healthAnswer(200, `{"status":"healthy"}`)
	plain := httptest.NewServer(healthy)
	defer plain.Close()
	secure := httptest.NewUnstartedServer(healthy) // its certificate is signed by nobody that is trusted
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	unix := &httptest.Server{Listener: ln, Config: &http.Server{Handler: healthy}}
	unix.Start()
	defer unix.Close()

	port := func(srv *httptest.Server) string { return srv.URL[strings.LastIndex(srv.URL, ":")+1:] }
	for name, server := range map[string]ServerConfig{
		"loopback":              {Host: "127.0.0.1", Port: port(plain)},
		"all addresses":         {Host: "", Port: port(plain)},
		"all addresses of IPv4": {Host: "0.0.0.0", Port: port(plain)},
		"all addresses of IPv6": {Host: "::", Port: port(plain)},
		"TLS":                   {Host: "", Port: port(secure), TLSCert: "cert.pem", TLSKey: "key.pem"},
		"socket":                {Host: "192.0.2.1", Port: "1", UnixSocket: socket},
	} {
		t.Run(name, func(t *testing.T) {
			check, err := configuredHealthCheck(&Config{Server: server})
			if err != nil {
				t.Fatal(err)
			}
			check.url.Path = "/health"
			if err := check.ask(t.Context()); err != nil {
				t.Errorf("%s: %v", check.name(), err)
			}
		})
	}
	if _, err := configuredHealthCheck(&Config{Server: ServerConfig{Port: "0"}}); err == nil {
		t.Error("port 0 is nowhere to ask, but no error")
	}
	if check := (healthCheck{url: mustURL(t, secure.URL+"/health"), transport: &http.Transport{}}); check.ask(t.Context()) == nil {
		t.Error("a URL given by hand is asked without checking its certificate")
	}
}

// TestHealthDoesNotWaitForASilentServer: it accepts and says nothing.
func TestHealthDoesNotWaitForASilentServer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	check := healthCheck{url: mustURL(t, "http://"+silent.Addr().String()), transport: &http.Transport{}}
	if err := check.ask(ctx); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("got %v", err)
	}
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
