package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"time"
)

// certificate is a key pair and the state of its files when it was read. Immutable.
type certificate struct {
	pair   tls.Certificate
	stamps [2]fileStamp
}

// fileStamp tells one content of a file from another: renewals write new files.
type fileStamp struct {
	modified time.Time
	size     int64
}

// certificateStamps looks at the files of the certificate. A file that is not there has the zero stamp.
func certificateStamps(cfg *Config) (stamps [2]fileStamp) {
	for i, path := range [...]string{cfg.Server.TLSCert, cfg.Server.TLSKey} {
		if info, err := os.Stat(path); err == nil {
			stamps[i] = fileStamp{info.ModTime(), info.Size()}
		}
	}
	return stamps
}

// loadCertificate reads the certificate, nil when none is configured.
func loadCertificate(cfg *Config) (*certificate, error) {
	if cfg.Server.TLSCert == "" {
		return nil, nil
	}
	stamps := certificateStamps(cfg) // before reading: a change in between is seen at the next look
	pair, err := tls.LoadX509KeyPair(cfg.Server.TLSCert, cfg.Server.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("server.tls_cert %q, server.tls_key %q: %w", cfg.Server.TLSCert, cfg.Server.TLSKey, err)
	}
	return &certificate{pair, stamps}, nil
}

// tlsConfig serves the certificate in force, nil when there is none.
func (s *Server) tlsConfig() *tls.Config {
	if s.rules.Load().certificate == nil {
		return nil
	}
	return &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &s.rules.Load().certificate.pair, nil },
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"}, // a WebSocket upgrade needs HTTP/1.1
	}
}

// renewCertificate reads the certificate again when its files have changed, as renewals do every two months. While they do not
// fit together, because only one of them has been written yet, the old one is served. Run's goroutine.
func (s *Server) renewCertificate() {
	old := s.rules.Load()
	if old.certificate == nil {
		return
	}
	stamps := certificateStamps(old.cfg)
	if stamps == old.certificate.stamps {
		return
	}
	fresh, err := loadCertificate(old.cfg)
	if err != nil {
		if stamps != s.spoiled {
			s.spoiled = stamps
			s.log.Warn("the certificate has changed and cannot be used; the old one is served on", "error", err)
		}
		return
	}
	next := *old
	next.certificate = fresh
	s.rules.Store(&next)
	s.log.Info("the certificate has changed and is in force", "valid_until", fresh.pair.Leaf.NotAfter)
}
