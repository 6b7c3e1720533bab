package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// change is what is added to a demo program: the new one cannot have the old
// one's image.
const change = "\n// A change that bench makes.\n"

// appChange measures what a person waits for after an edit of a demo program:
// the command is built with the changed source, and up brings it to the lab.
// The edit is an overlay of the build; no file of the checkout changes.
func (b *bench) appChange(ctx context.Context) (_ time.Duration, err error) {
	dir, err := os.MkdirTemp("", "fedlab-bench-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	changed := filepath.Join("apps", b.topology.Workloads[0].App.Name, "main.go")
	source, err := os.ReadFile(changed)
	if err != nil {
		return 0, err
	}
	here, err := filepath.Abs(changed)
	if err != nil {
		return 0, err
	}
	edited := filepath.Join(dir, "edited.go")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{here: edited}})
	if err != nil {
		return 0, err
	}
	// Something new each time, or the image would be there from the last run.
	text := fmt.Sprintf("%s%s// %d\n", source, change, time.Now().UnixNano())
	err = errors.Join(
		os.WriteFile(edited, []byte(text), 0o644),
		os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644),
		b.writeLabFile(filepath.Join(dir, "lab.yaml")))
	if err != nil {
		return 0, err
	}
	fedlab := filepath.Join(dir, "fedlab")
	return timed(func() error {
		err := command(ctx, "go", "build", "-trimpath", "-overlay", filepath.Join(dir, "overlay.json"), "-o", fedlab, "./cmd/fedlab")
		if err != nil {
			return err
		}
		return command(ctx, fedlab, "up", "--lab", filepath.Join(dir, "lab.yaml"))
	})
}

func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s %s: %w\n%s", filepath.Base(name), args[0], err, output.Bytes())
	}
	return nil
}
