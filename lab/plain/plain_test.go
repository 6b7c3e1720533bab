package plain

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestBytes(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"what people write":   {"spiffe://cluster1.com\tüöä €\n…", "spiffe://cluster1.com\tüöä €\n…"},
		"colour":              {"\x1b[31mred\x1b[0m", `\u001b[31mred\u001b[0m`},
		"title":               {"\x1b]0;x\x07", `\u001b]0;x\u0007`},
		"link":                {"\x1b]8;;http://x\x1b\\here\x1b]8;;\x1b\\", `\u001b]8;;http://x\u001b\here\u001b]8;;\u001b\`},
		"C1 in UTF-8":         {"\u009b31m\u0085\u009d", `\u009b31m\u0085\u009d`},
		"C1 as a byte":        {"\x9b31m", "\uFFFD31m"},
		"back to the start":   {"NOT WELL\rwell    \b", `NOT WELL\u000dwell    \u0008`},
		"delete and nul":      {"\x7f\x00", `\u007f\u0000`},
		"turned text":         {"a\u202eb\u2066c\u200fd\u061c", `a\u202eb\u2066c\u200fd\u061c`},
		"line separators":     {"a\u2028b\u2029", `a\u2028b\u2029`},
		"a character cut off": {"a\xe2\x82", "a\uFFFD\uFFFD"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(Bytes([]byte(tt.text))); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			var whole, apart bytes.Buffer
			if _, err := io.WriteString(Writer(&whole), tt.text+"€"); err != nil {
				t.Error(err)
			}
			if _, err := io.Copy(Writer(&apart), iotest.OneByteReader(bytes.NewReader([]byte(tt.text+"€")))); err != nil {
				t.Error(err)
			}
			if name != "a character cut off" && (whole.String() != tt.want+"€" || apart.String() != tt.want+"€") {
				t.Errorf("written at once %q, byte by byte %q, want %q", &whole, &apart, tt.want)
			}
		})
	}
}

// TestJSONStays: programs read the same as without it.
func TestJSONStays(t *testing.T) {
	const foreign = "\x1b\u009b\u202e\\\u0085\"\r"
	text, err := json.Marshal(foreign)
	if err != nil {
		t.Fatal(err)
	}
	var got string
	if err := json.Unmarshal(Bytes(text), &got); err != nil || got != foreign {
		t.Errorf("got %q, error %v, want %q", got, err, foreign)
	}
}

func TestWriterPassesErrorsOn(t *testing.T) {
	full := errors.New("no room")
	if n, err := Writer(failing{full}).Write([]byte("x")); n != 0 || !errors.Is(err, full) {
		t.Errorf("wrote %d, error %v", n, err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
