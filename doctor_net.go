package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// findHost looks the host up and finds an address that takes a TCP connection. False: there is none.
func (d *doctor) findHost(ctx context.Context) bool {
	host := d.base.Hostname()
	addresses := d.resolve(ctx, host)
	if len(addresses) == 0 {
		return false
	}
	port, err := strconv.ParseUint(d.port(), 10, 16)
	if err != nil {
		d.fail("tcp", "write a port between 1 and 65535", "the port %s is none", d.port())
		return false
	}
	var failed []error
	var deaf []netip.Addr
	for _, address := range addresses {
		target := netip.AddrPortFrom(address, uint16(port))
		socket, err := (&net.Dialer{Timeout: doctorStep}).DialContext(ctx, "tcp", target.String())
		if err != nil {
			failed, deaf = append(failed, err), append(deaf, address)
			continue
		}
		socket.Close()
		if !d.address.IsValid() {
			d.address = target
		}
	}
	if !d.address.IsValid() {
		d.fail("tcp", d.connectFix(failed[0]), "port %d of %s: %v", port, joinAddresses(addresses), reasonOf(failed[0]))
		return false
	}
	d.ok("tcp", "port %d of %s is open", port, d.address.Addr())
	if len(deaf) > 0 && host != "localhost" {
		d.warn("tcp", "let the proxy listen there too, or take the address out of the DNS: a browser may try it first",
			"%s has no open port %d: %v", joinAddresses(deaf), port, reasonOf(failed[0]))
	}
	return true
}

// resolve returns the addresses of the host, none after it has said what is wrong.
func (d *doctor) resolve(ctx context.Context, host string) []netip.Addr {
	if address, err := netip.ParseAddr(host); err == nil {
		d.skip("dns", "%s is an address", address)
		return []netip.Addr{address.Unmap()}
	}
	ctx, cancel := context.WithTimeout(ctx, doctorStep)
	defer cancel()
	addresses, err := d.lookup(ctx, "ip", host)
	var wrong *net.DNSError
	switch {
	case errors.As(err, &wrong) && wrong.IsNotFound:
		d.fail("dns", "add an A record (IPv6: AAAA) with the server's address where the domain is managed, and wait some minutes; or mend the name",
			"%s has no address", host)
	case err != nil:
		d.fail("dns", "try again, or from another network", "%s cannot be looked up: %v", host, reasonOf(err))
	default:
		for i := range addresses {
			addresses[i] = addresses[i].Unmap()
		}
		d.ok("dns", "%s is %s", host, joinAddresses(addresses))
		return addresses
	}
	return nil
}

// port is the URL's, or its scheme's.
func (d *doctor) port() string {
	if port := d.base.Port(); port != "" {
		return port
	}
	return defaultPort(d.base.Scheme)
}

// connectFix says what a TCP connection that failed asks for.
func (d *doctor) connectFix(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: start the proxy, or letshare itself; one that listens on 127.0.0.1 is seen from its own machine alone"
	case errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT):
		return "a firewall swallows it: open port " + d.port() + " on the machine and at its provider"
	}
	return "look at the machine's network and firewall"
}

func joinAddresses(addresses []netip.Addr) string {
	texts := make([]string, len(addresses))
	for i, address := range addresses {
		texts[i] = address.String()
	}
	return strings.Join(texts, ", ")
}

// tlsConfig trusts what the system trusts, or what a test brought along.
func (d *doctor) tlsConfig() *tls.Config {
	return &tls.Config{ServerName: d.base.Hostname(), RootCAs: d.roots, NextProtos: []string{"http/1.1"}}
}

// checkCertificate shakes hands and looks at the certificate as a browser does. False: there is none that may be trusted, and
// the token must not be sent.
func (d *doctor) checkCertificate(ctx context.Context) bool {
	if d.base.Scheme != "https" {
		if !d.address.Addr().IsLoopback() {
			d.warn("tls", "put a proxy with a certificate in front and use wss://: pages served over https cannot use ws://, and the token is sent in the clear",
				"the URL is without TLS")
		}
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, doctorStep)
	defer cancel()
	// The library would stop at the first fault, without the names and dates: the chain is verified below.
	config := d.tlsConfig()
	config.InsecureSkipVerify = true
	socket, err := new(net.Dialer).DialContext(ctx, "tcp", d.address.String())
	if err != nil {
		d.fail("tls", d.connectFix(err), "%v", reasonOf(err))
		return false
	}
	defer socket.Close()
	client := tls.Client(socket, config)
	if err := client.HandshakeContext(ctx); err != nil {
		d.describeHandshake(err)
		return false
	}
	state := client.ConnectionState()
	return d.judge(state.PeerCertificates, tls.VersionName(state.Version), time.Now())
}

// describeHandshake says why there was no certificate to look at.
func (d *doctor) describeHandshake(err error) {
	var plain tls.RecordHeaderError
	if errors.As(err, &plain) {
		text := "what answers there is not TLS"
		if string(plain.RecordHeader[:4]) == "HTTP" {
			text = "plain HTTP answers there, not TLS"
		}
		d.fail("tls", "give the proxy a certificate for this port (server.tls_cert and tls_key without a proxy), or use the port that has one", "%s", text)
		return
	}
	d.fail("tls", "the proxy has no certificate for this name, or none at all: its error log says which", "the handshake failed: %v", err)
}

// judge verifies a chain, leaf first, for the host at a time.
func (d *doctor) judge(chain []*x509.Certificate, version string, now time.Time) bool {
	leaf, host := chain[0], d.base.Hostname()
	names := strings.Join(certificateNames(leaf), ", ")
	intermediates := x509.NewCertPool()
	for _, certificate := range chain[1:] {
		intermediates.AddCert(certificate)
	}
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: d.roots, Intermediates: intermediates, CurrentTime: now})
	var unknown x509.UnknownAuthorityError
	left := leaf.NotAfter.Sub(now)
	switch {
	case left < 0:
		d.fail("tls", "renew it (certbot renew) and reload the proxy; Caddy renews by itself when ports 80 and 443 reach it",
			"the certificate for %s expired %s ago, on %s", names, days(-left), leaf.NotAfter.UTC().Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		d.fail("tls", "set the clocks of both machines (timedatectl)", "the certificate is valid only from %s on", leaf.NotBefore.UTC().Format(time.RFC3339))
	case leaf.VerifyHostname(host) != nil:
		d.fail("tls", "get a certificate for "+host+", or use a name that this one has", "the certificate is for %s, not for %s", names, host)
	case errors.As(err, &unknown) && d.knowsNobody():
		d.fail("tls", "install ca-certificates, or run the doctor on another machine", "this machine knows no authority at all, and can judge no certificate")
	case errors.As(err, &unknown) && len(chain) == 1 && leaf.CheckSignatureFrom(leaf) != nil:
		d.fail("tls", "let the proxy send the whole chain (fullchain.pem, not cert.pem)", "the certificate comes without the one that signed it, or from a private authority (%s)", leaf.Issuer.CommonName)
	case errors.As(err, &unknown):
		d.fail("tls", "get one from a public authority (Caddy and certbot do), or install this authority on every device: browsers refuse wss:// without a word",
			"nobody knows the authority of the certificate for %s", names)
	case err != nil:
		d.fail("tls", "replace the certificate", "the certificate for %s does not hold: %v", names, err)
	case left < leaf.NotAfter.Sub(leaf.NotBefore)/doctorRenewal:
		d.warn("tls", "see why it was not renewed", "%s, certificate for %s, expires in %s", version, names, days(left))
		return true
	default:
		d.ok("tls", "%s, certificate for %s, expires in %s", version, names, days(left))
		return true
	}
	return false
}

// knowsNobody: an image without certificates, as letshare's own, trusts nobody.
func (d *doctor) knowsNobody() bool {
	if d.roots != nil {
		return false
	}
	system, err := x509.SystemCertPool()
	return err != nil || system.Equal(x509.NewCertPool())
}

// certificateNames are the names and addresses that a certificate is for.
func certificateNames(c *x509.Certificate) []string {
	names := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return []string{"no name"}
	}
	return names
}

// days says a duration as people say it of certificates.
func days(d time.Duration) string {
	if d < 48*time.Hour {
		return d.Round(time.Minute).String()
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + " days"
}
