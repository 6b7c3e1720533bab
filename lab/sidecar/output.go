package sidecar

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/testcontainers/testcontainers-go"
)

// ended says how a program ended, with the last line that it wrote: when its
// container is gone, nobody can look for it any more.
func ended(ctx context.Context, c testcontainers.Container, seen state, env map[string]string) error {
	err := fmt.Errorf("it has ended with exit code %d", seen.exitCode)
	output, logErr := tail(ctx, c)
	if line := lastLine(withheld(output, env)); line != "" {
		err = fmt.Errorf("%w: %s", err, line)
	}
	return errors.Join(err, logErr)
}

// tailLimit is how many bytes of a program's output are looked at.
const tailLimit = 64 << 10

// tail returns the end of what a program wrote to its standard output and error.
func tail(ctx context.Context, c testcontainers.Container) (_ string, err error) {
	logs, err := c.Logs(ctx)
	if err != nil {
		return "", fmt.Errorf("read its output: %w", err)
	}
	defer func() { err = errors.Join(err, logs.Close()) }()
	return endOf(logs)
}

// endOf returns the last whole lines of what there is to read: a secret that is
// cut in two would not be known.
func endOf(r io.Reader) (string, error) {
	var end []byte
	cut := false
	part := make([]byte, 4<<10)
	for {
		n, err := r.Read(part)
		end = append(end, part[:n]...)
		if surplus := len(end) - tailLimit; surplus > 0 {
			end, cut = end[surplus:], true
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("read its output: %w", err)
		}
	}
	if cut {
		_, end, _ = bytes.Cut(end, []byte("\n"))
	}
	return string(end), nil
}

// withheld is a text without the values of variables, any of which may be a
// secret: as they are, line by line, and quoted.
func withheld(text string, env map[string]string) string {
	var secrets []string
	for _, value := range env {
		quoted := strconv.Quote(value)
		secrets = append(secrets, value, quoted[1:len(quoted)-1])
		for line := range strings.Lines(value) {
			secrets = append(secrets, strings.TrimSpace(line))
		}
	}
	// What is part of another one would leave the rest of it.
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "…")
		}
	}
	return text
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
