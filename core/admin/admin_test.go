package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func TestStatus(t *testing.T) {
	state := t.TempDir()
	ctx := context.Background()
	if _, err := Ask(ctx, state, "/status"); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("without a server: %v, want ErrNotRunning", err)
	}
	for range 2 { // the second finds the first one's socket
		s, err := Listen(Config{State: state, Status: func() Status { return Status{Hostname: "mx.example.org", Owed: 3} }, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(filepath.Join(state, SocketName))
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("socket has mode %v, %v; want 0600", fi.Mode(), err)
		}
		b, err := Ask(ctx, state, "/status")
		if err != nil {
			t.Fatal(err)
		}
		var got Status
		if err := json.Unmarshal(b, &got); err != nil || got.Hostname != "mx.example.org" || got.Owed != 3 {
			t.Errorf("status %s, %v", b, err)
		}
		if _, err := Ask(ctx, state, "/nothing"); err == nil {
			t.Error("an unknown path is no error")
		}
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}
