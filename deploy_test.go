package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestProductionConfigThatShips checks deploy/config.production.json as the systemd unit does before each start: with a
// secret in the environment it is valid, without one the line says what to set.
func TestProductionConfigThatShips(t *testing.T) {
	const path = "deploy/config.production.json"
	environment := map[string]string{}
	check := func() (exit int, printed, complaint string) {
		var stdout, stderr bytes.Buffer
		exit = run(t.Context(), []string{"check", "-config", path}, &stdout, &stderr, func(name string) string { return environment[name] })
		return exit, stdout.String(), stderr.String()
	}

	exit, _, complaint := check()
	if exit != 1 || !strings.Contains(complaint, "jwt.secret") || !strings.Contains(complaint, "LETSHARE_JWT_SECRET") {
		t.Errorf("without a secret: exit %d and %q, want 1 and the key and variable to set", exit, complaint)
	}

	secret := strings.Repeat("0123456789abcdef", 4)
	environment["LETSHARE_JWT_SECRET"] = secret
	exit, printed, complaint := check()
	if exit != 0 {
		t.Fatalf("with a secret: exit %d: %s", exit, complaint)
	}
	if strings.Contains(printed+complaint, secret) {
		t.Error("the secret is printed")
	}
	cfg, err := LoadConfig(path, func(name string) string { return environment[name] })
	if err != nil {
		t.Fatal(err)
	}
	origins := []string{"https://letshare.fun", "https://www.letshare.fun", "https://cdn.letshare.fun"}
	if cfg.Mode != modeProduction || cfg.Server.Port != "8080" || cfg.Log.Level != "info" || !slices.Equal(cfg.CORS.AllowedOrigins, origins) {
		t.Errorf("mode %q, port %q, level %q, origins %q", cfg.Mode, cfg.Server.Port, cfg.Log.Level, cfg.CORS.AllowedOrigins)
	}
	if text, err := os.ReadFile(path); err != nil || strings.Contains(string(text), "secret") {
		t.Errorf("the file must leave the secret to the environment (%v)", err)
	}
}
