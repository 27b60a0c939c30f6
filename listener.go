package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
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
		if err := grantSocket(cfg); err != nil {
			listener.Close()
			return nil, err
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

// grantSocket gives the Unix socket its mode and owner. Until then the process's umask holds.
func grantSocket(cfg *Config) error {
	path := cfg.Server.UnixSocket
	mode, err := parseSocketMode(cfg.Server.UnixSocketMode)
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		return fmt.Errorf("server.unix_socket_mode %q: %w", cfg.Server.UnixSocketMode, reasonOf(err))
	}
	if cfg.Server.UnixSocketOwner == "" {
		return nil
	}
	uid, gid, err := lookupOwner(cfg.Server.UnixSocketOwner)
	if err == nil {
		err = os.Chown(path, uid, gid)
	}
	if err != nil {
		return fmt.Errorf("server.unix_socket_owner %q: %w; name a user and group of this machine, and one that this user may give files to",
			cfg.Server.UnixSocketOwner, reasonOf(err))
	}
	return nil
}

// parseSocketMode reads permissions in octal, as chmod takes them.
func parseSocketMode(s string) (os.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 || len(s) < 3 || len(s) > 4 {
		return 0, errors.New(`must be three or four octal digits up to 0777, in quotes, like "0660"`)
	}
	return os.FileMode(n), nil
}

// lookupOwner reads user, user:group or :group, each by name or number. -1 leaves one as it is.
func lookupOwner(s string) (uid, gid int, err error) {
	name, groupName, _ := strings.Cut(s, ":")
	uid, gid = -1, -1
	if name != "" {
		if uid, err = strconv.Atoi(name); err != nil {
			found, err := user.Lookup(name)
			if err != nil {
				return -1, -1, fmt.Errorf("there is no user %q", name)
			}
			uid, _ = strconv.Atoi(found.Uid)
		}
	}
	if groupName != "" {
		if gid, err = strconv.Atoi(groupName); err != nil {
			found, err := user.LookupGroup(groupName)
			if err != nil {
				return -1, -1, fmt.Errorf("there is no group %q", groupName)
			}
			gid, _ = strconv.Atoi(found.Gid)
		}
	}
	return uid, gid, nil
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

// gate is a listener that accepts no more sockets than the process has descriptors for. Those that wait
// outside are accepted when others end.
type gate struct {
	net.Listener
	open   chan struct{} // one element for each socket that is open; never closed
	closed chan struct{} // closed by Close
	once   sync.Once     // the first Close counts
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

// Close ends Accept. Any goroutine; the first call counts.
func (g *gate) Close() (err error) {
	g.once.Do(func() {
		close(g.closed)
		err = g.Listener.Close()
	})
	return err
}

// leave notes that a socket has been closed.
func (g *gate) leave() { <-g.open }

// watch counts the sockets that net/http closes itself; a connection that was taken over calls leave at its end.
func (g *gate) watch(_ net.Conn, state http.ConnState) {
	if state == http.StateClosed {
		g.leave()
	}
}
