package redact

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTimeGrowsWithLength has texts that a careless reader goes through again
// and again: four times the text may not take sixteen times the time. The best of
// some tries counts, so that a busy machine does not.
func TestTimeGrowsWithLength(t *testing.T) {
	k := keys(t)["EC in PKCS #8"]
	const small = 16 << 10
	for name, unit := range map[string]string{
		"begins":              "-----BEGIN PRIVATE KEY-----\n",
		"begins in one line":  "-----BEGIN PRIVATE KEY-----",
		"ends":                "-----END PRIVATE KEY-----\n",
		"ends in one line":    "-----END PRIVATE KEY----- ",
		"keys":                k.pem,
		"objects that open":   `{"a":`,
		"arrays that open":    "[[",
		"both":                `[{"`,
		"brackets":            "password=[",
		"named brackets":      "name=[",
		"values":              "value=( ",
		"quotes":              `"`,
		"escaped quotes":      `\"`,
		"escapes":             `\`,
		"escaped strings":     `"\"" `,
		"strings that open":   "password \"x 'y ",
		"secrets":             "password: a ",
		"secrets in a word":   `x"password:a"`,
		"secrets without end": "token=a,",
		"words about secrets": "token: is bad ",
		"names":               "name: password ",
		"values and names":    "value: x name: password\n",
		"colons":              ":",
		"names of one letter": "kty d:",
		"flags":               "--token ",
		"users":               "-u ",
		"dashes":              "-",
		"URLs":                "a://b/",
		"URLs with users":     "a://b:c@",
		"base64":              "QUJD",
		"JWTs":                "eyJhbGciOiJIUzI1NiJ9.",
		"bytes":               "0x30, ",
		"numbers":             "48 ",
		"key lines":           strings.Repeat("QUJD", 16) + "\n",
		"YAML":                " password:\n",
		"blocks":              "password:\n  x\n",
		"gzip":                "\x1f\x8b\x08",
		"zipped":              string(zipped(k.pem)),
		"a log of JSON":       `{"level":"info","msg":"it says \"{\\\"password\\\":\\\"x\\\"}\"","n":[1,2]}` + "\n",
		"spaces":              " ",
	} {
		t.Run(name, func(t *testing.T) {
			took := func(size int) time.Duration {
				text := []byte(strings.Repeat(unit, size/len(unit)+1))
				best := time.Hour
				for range 2 {
					began := busy(t)
					textOf(text)
					best = min(best, busy(t)-began)
				}
				return best
			}
			short, long := took(small), took(4*small)
			for try := 0; long > 8*short && try < 3; try++ {
				short, long = max(short, took(small)), min(long, took(4*small))
			}
			if long > 8*short {
				t.Errorf("%d bytes take %s, four times as many %s", small, short, long)
			}
		})
	}
}

// busy returns how long processors have worked for this process: on a machine
// that has other work, too, that says more than a clock.
func busy(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// TestTenMegabytes of lines that each begin a key take time and memory as their
// length does.
func TestTenMegabytes(t *testing.T) {
	const line = "-----BEGIN PRIVATE KEY-----\n"
	took := func(size int) (time.Duration, uint64) {
		text := bytes.Repeat([]byte(line), size/len(line))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := busy(t)
		textOf(text)
		ended := busy(t)
		runtime.ReadMemStats(&after)
		return ended - began, after.TotalAlloc - before.TotalAlloc
	}
	short, less := took(1 << 20)
	long, memory := took(10 << 20)
	if long > 30*short {
		t.Errorf("1 MB takes %s, 10 MB take %s", short, long)
	}
	// What is allocated in all, most of it for a moment; the race detector adds
	// to it.
	if memory > 40*less {
		t.Errorf("1 MB takes %d bytes of memory, 10 MB take %d", less, memory)
	}
}

// TestBomb: data that is compressed to a thousandth is not decoded to its end.
func TestBomb(t *testing.T) {
	text := append([]byte("before it "), zipped(strings.Repeat("\x00", 1<<25))...)
	r := &redactor{ended: t.Context().Err, budget: 1 << 20}
	if got, want := string(r.clean(text, 0)), "before it "+mark("compressed data"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if r.budget < -1<<20 {
		t.Errorf("%d bytes were read", 1<<20-r.budget)
	}
}

// TestEndsWithItsContext: a text of which nobody waits for the end is not read on.
func TestEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if got, err := Text(ctx, []byte("x")); !errors.Is(err, context.Canceled) || got != nil {
		t.Errorf("got %q, error %v", got, err)
	}
}

// TestNestedTooDeep: what is encoded more often than anybody does is removed,
// and so is what takes too long to read.
func TestNestedTooDeep(t *testing.T) {
	text := canary
	for range maxDepth + 2 {
		text = escaped(`{"password":` + escaped(text) + `}`)
		text = "x=" + text
	}
	if got := string(textOf([]byte(text))); strings.Contains(got, "Tr0ub4dor") {
		t.Errorf("it stays: %s", got)
	}
	text = "it is public"
	for range 2 {
		text = escaped(`{"note":` + escaped(text) + `}`)
	}
	if got := string(textOf([]byte(text))); got != text {
		t.Errorf("it is gone: %s", got)
	}
}
