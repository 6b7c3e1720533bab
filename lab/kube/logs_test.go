package kube

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestEndOfALog(t *testing.T) {
	for name, tt := range map[string]struct {
		text  string
		limit int
		want  string
	}{
		"short":             {"one\ntwo\n", 100, "one\ntwo\n"},
		"just as long":      {"one\ntwo\n", 8, "one\ntwo\n"},
		"longer":            {"one\ntwo\nthree\n", 8, "three\n"},
		"one line":          {strings.Repeat("x", 100), 8, ""},
		"much longer":       {strings.Repeat("line\n", 1000) + "last\n", 11, "line\nlast\n"},
		"empty":             {"", 8, ""},
		"without a newline": {"one\ntwo", 5, "two"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, from := range []io.Reader{strings.NewReader(tt.text), iotest.OneByteReader(strings.NewReader(tt.text))} {
				if got, err := lastLines(from, tt.limit); err != nil || string(got) != tt.want {
					t.Errorf("got %q, error %v, want %q", got, err, tt.want)
				}
			}
		})
	}
	broken := errors.New("it is gone")
	if got, err := lastLines(io.MultiReader(strings.NewReader("one\n"), iotest.ErrReader(broken)), 8); !errors.Is(err, broken) {
		t.Errorf("got %q, error %v, want %v", got, err, broken)
	}
}
