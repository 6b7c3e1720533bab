package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestReaps: what ends is gone, and is not left a zombie.
func TestReaps(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, settings{}, slog.New(slog.DiscardHandler)) }()
	// A child of this process, for which nobody here waits.
	child, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprintf("/proc/%d", child.Pid)
	deadline := time.After(time.Minute)
	for look := time.NewTicker(10 * time.Millisecond); ; {
		if _, err := os.Stat(at); errors.Is(err, os.ErrNotExist) {
			break
		}
		select {
		case <-deadline:
			t.Fatalf("%s is still there", at)
		case <-look.C:
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestTakesNoArguments: whoever gives it some takes it for another program.
func TestTakesNoArguments(t *testing.T) {
	program := t.TempDir() + "/holder"
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const want = "read flags: unexpected argument \"now\": every setting is a flag\n"
	out, err := exec.CommandContext(t.Context(), program, "now").CombinedOutput()
	var ended *exec.ExitError
	if !errors.As(err, &ended) || ended.ExitCode() != 2 || string(out) != want {
		t.Errorf("error %v: %s", err, out)
	}
}
