package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// listen opens the address that the configuration names. Its errors name the key, the value and the fix.
func listen(cfg *Config) (net.Listener, error) {
	if path := cfg.Server.UnixSocket; path != "" {
		if err := removeStaleSocket(path); err != nil {
			return nil, err
		}
		listener, err := net.Listen("unix", path)
		if err != nil {
			return nil, fmt.Errorf("server.unix_socket %q: %w; name a path in a folder that this user may write to", path, reasonOf(err))
		}
		return listener, nil
	}
	// Our own pings tell who is gone: the kernel's keep-alive would cost every connection four system calls.
	listener, err := (&net.ListenConfig{KeepAlive: -1}).Listen(context.Background(), "tcp", cfg.Address())
	if err != nil {
		fix := "name an address of this machine and a free port"
		if errors.Is(err, syscall.EADDRINUSE) {
			fix = "another program listens there; stop it, or set another server.port (LETSHARE_SERVER_PORT)"
		} else if errors.Is(err, os.ErrPermission) {
			fix = "ports under 1024 need a privilege; set server.port (LETSHARE_SERVER_PORT) to 8080"
		}
		return nil, fmt.Errorf("server.host %q, server.port %q: %w; %s", cfg.Server.Host, cfg.Server.Port, reasonOf(err), fix)
	}
	return listener, nil
}

// reasonOf is the system's own error, without the operation and the address around it.
func reasonOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// removeStaleSocket removes a socket that nobody listens on, as a kill leaves it behind. It removes nothing else.
func removeStaleSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("server.unix_socket %q: there is a file that is no socket; name another path", path)
	}
	if other, err := net.DialTimeout("unix", path, time.Second); err == nil {
		other.Close()
		return fmt.Errorf("server.unix_socket %q: another server listens there; stop it, or name another path", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("server.unix_socket %q: %w; remove it by hand", path, err)
	}
	return nil
}

// loadTLS reads the certificate, nil when none is configured.
func loadTLS(cfg *Config) (*tls.Config, error) {
	if cfg.Server.TLSCert == "" {
		return nil, nil
	}
	certificate, err := tls.LoadX509KeyPair(cfg.Server.TLSCert, cfg.Server.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("server.tls_cert %q, server.tls_key %q: %w", cfg.Server.TLSCert, cfg.Server.TLSKey, err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"}, // a WebSocket upgrade needs HTTP/1.1
	}, nil
}

// gate is a listener that accepts no more sockets than the process has descriptors for. Those that wait
// outside are accepted when others end.
type gate struct {
	net.Listener
	open   chan struct{} // one element for each socket that is open; never closed
	closed chan struct{} // closed by Close
}

// newGate lets limit sockets through at a time.
func newGate(listener net.Listener, limit int) *gate {
	return &gate{Listener: listener, open: make(chan struct{}, limit), closed: make(chan struct{})}
}

// Accept waits for a free descriptor and then for a client. Called by one goroutine.
func (g *gate) Accept() (net.Conn, error) {
	select {
	case g.open <- struct{}{}:
	case <-g.closed:
		return nil, net.ErrClosed
	}
	socket, err := g.Listener.Accept()
	if err != nil {
		<-g.open
	}
	return socket, err
}

// Close ends Accept. Called once.
func (g *gate) Close() error {
	close(g.closed)
	return g.Listener.Close()
}

// leave notes that a socket has been closed.
func (g *gate) leave() { <-g.open }

// watch counts the sockets that net/http closes itself; a connection that was taken over calls leave at its end.
func (g *gate) watch(_ net.Conn, state http.ConnState) {
	if state == http.StateClosed {
		g.leave()
	}
}
