package sidecar

import (
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestWithheld(t *testing.T) {
	env := map[string]string{
		"EMPTY": "", "TOKEN": "s3cret", "LONGER": "s3cret-and-more", "KEY": "-----BEGIN\n  abc\n-----END\n",
	}
	for text, want := range map[string]string{
		"listens on :8443":                         "listens on :8443",
		"refused s3cret and s3cret-and-more":       "refused … and …",
		"key \"-----BEGIN\\n  abc\\n-----END\\n\"": "key \"…\"",
		"one line of it: abc":                      "one line of it: …",
		"-----BEGIN\n  abc\n-----END\nrefused":     "…refused",
	} {
		if got := withheld(text, env); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestLastLine(t *testing.T) {
	for text, want := range map[string]string{"": "", "\n": "", "one": "one", "one\ntwo\n": "two", "one\n\n": "one"} {
		if got := lastLine(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestEndOf: what is cut off in the midst of a line may be half a secret.
func TestEndOf(t *testing.T) {
	long := strings.Repeat("x", tailLimit)
	for text, want := range map[string]string{"": "", "one\ntwo": "one\ntwo", long: long, long + "x": "", long + "\ntwo\n": "two\n"} {
		got, err := endOf(iotest.OneByteReader(strings.NewReader(text)))
		if got != want || err != nil {
			t.Errorf("of %d bytes: %.20q, error %v, want %.20q", len(text), got, err, want)
		}
	}
	_, err := endOf(iotest.TimeoutReader(io.MultiReader(strings.NewReader("one"), strings.NewReader("two"))))
	if err == nil || err.Error() != "read its output: timeout" {
		t.Errorf("error %v", err)
	}
}

func TestVariablesOfAContainer(t *testing.T) {
	img := image{env: []string{"PATH=/bin", "HOME=/"}}
	got := img.with(map[string]string{"HOME": "/root", "A": "b=c"})
	if want := []string{"A=b=c", "HOME=/root", "PATH=/bin"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestValid: the words of an error have the name alone.
func TestValid(t *testing.T) {
	for name, env := range map[string]map[string]string{
		`""`: {"": "s3cret"}, `"A=s"`: {"A=s": "s3cret"}, `"A"`: {"A": "s3\x00cret"}, `"A\x00"`: {"A\x00": "s3cret"},
	} {
		want := "run container c: variable " + name + " cannot be set: its name is empty or has a =, or there is a zero byte"
		if _, err := Run(t.Context(), Spec{Name: "c", Env: env}); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
