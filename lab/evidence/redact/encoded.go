package redact

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"io"
	"strings"
	"unicode/utf8"
)

// shortest is how long base64 is at least that is looked into: enough for a short
// secret with its name.
const shortest = 20

func isBase64(c byte) bool { return isAlphanumeric(c) || c == '+' || c == '/' || c == '-' || c == '_' }

// runs calls do with each run of base64 and where it stands. Its slashes may be
// escaped, as JSON allows.
func runs(text []byte, do func(run []byte, start, end int)) {
	for at := 0; at < len(text); {
		start, slashes := at, 0
		for at < len(text) {
			if text[at] == '\\' && at+1 < len(text) && text[at+1] == '/' {
				slashes++
			} else if !isBase64(text[at]) {
				break
			}
			at++
		}
		if at-start < shortest {
			at++
			continue
		}
		run := text[start:at]
		if slashes > 0 {
			run = bytes.ReplaceAll(run, []byte(`\/`), []byte("/"))
		}
		for range 2 {
			if at < len(text) && text[at] == '=' {
				at++
			}
		}
		do(run, start, at)
	}
}

// keyWord returns where the last word of a line is, if it may be one of a key in
// base64.
func keyWord(line []byte) (start, end int, ok bool) {
	end = len(bytes.TrimRight(line, " \t\r"))
	start = end
	for start > 0 && end-start < 2 && line[start-1] == '=' {
		start--
	}
	signs := end - start
	for start > 0 && isBase64(line[start-1]) {
		start--
	}
	if sum := start - 1; sum >= 0 && line[sum] == '=' && end-start == 4 && signs == 0 {
		start = sum // the sum that ends PGP's armor
		return start, end, start == 0 || line[start-1] == ' ' || line[start-1] == '\t'
	}
	long := end-start-signs >= 16 || signs > 0 && end-start > signs
	return start, end, long && (start == 0 || line[start-1] == ' ' || line[start-1] == '\t')
}

func isKeyLine(line []byte) bool {
	_, _, ok := keyWord(line)
	return ok
}

// encoded removes what decodes to a private key, to compressed data, or to text
// that holds a secret, such as a kubeconfig.
func (r *redactor) encoded(text []byte, depth int) []byte {
	edits := r.wrapped(text, depth)
	text = apply(text, edits)
	edits = nil
	runs(text, func(run []byte, start, end int) {
		if r.secretBase64(run, depth) {
			edits = append(edits, edit{start, end, mark("encoded secret")})
		}
	})
	edits = append(edits, r.listed(text, depth, 16)...)
	edits = append(edits, r.listed(text, depth, 10)...)
	return apply(text, edits)
}

// listed finds secrets in lists of bytes, as Go and openssl print them.
func (r *redactor) listed(text []byte, depth, base int) (edits []edit) {
	const digits = "0123456789abcdef"
	// element returns the byte that text begins with, and how long it is.
	element := func(text []byte) (b byte, size int) {
		least, most := 1, 3
		if base == 16 {
			least, most = 2, 2
			if bytes.HasPrefix(text, []byte("0x")) {
				least, size = 1, 2
			}
		}
		n, start := 0, size
		for size < len(text) && size-start < most {
			digit := strings.IndexByte(digits[:base], lower(text[size]))
			if digit < 0 {
				break
			}
			n, size = n*base+digit, size+1
		}
		if size-start < least || n > 255 || size < len(text) && isAlphanumeric(text[size]) {
			return 0, 0
		}
		return byte(n), size
	}
	var list []byte
	for at := 0; at < len(text); {
		if !isAlphanumeric(text[at]) || at > 0 && isAlphanumeric(text[at-1]) {
			at++
			continue
		}
		start, end := at, at
		list = list[:0]
		for {
			b, size := element(text[at:])
			if size == 0 {
				break
			}
			list = append(list, b)
			end = at + size
			at = end
			for at < len(text) && at-end < maxGap && strings.IndexByte(" :,\n", text[at]) >= 0 {
				at++
			}
			if at == end {
				break
			}
		}
		at = max(at, start+1)
		if len(list) >= 16 && r.secretBytes(list, depth) {
			edits = append(edits, edit{start, end, mark("encoded secret")})
		}
	}
	return edits
}

// maxGap is how far apart the bytes of a list may be.
const maxGap = 40

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c |= 0x20
	}
	return c
}

func isAlphanumeric(c byte) bool {
	c = lower(c)
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
}

// wrapped finds secrets that are encoded in several lines, of which only all
// together show what they are.
func (r *redactor) wrapped(text []byte, depth int) (edits []edit) {
	var joined []byte
	var words [][2]int // of each line of the block
	flush := func() {
		if len(words) > 1 && r.secretBase64(joined, depth) {
			first, last := words[0], words[len(words)-1]
			edits = append(edits, edit{first[0], last[1], mark("encoded secret")})
		}
		joined, words = joined[:0], words[:0]
	}
	for at := 0; at < len(text); {
		end := lineEnd(text, at)
		if from, to, ok := keyWord(text[at:end]); ok {
			words = append(words, [2]int{at + from, at + to})
			joined = append(joined, text[at+from:at+to]...)
		} else {
			flush()
		}
		at = end + 1
	}
	flush()
	return edits
}

// lineEnd returns where the line that at is in ends.
func lineEnd(text []byte, at int) int {
	if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
		return at + i
	}
	return len(text)
}

// secretBase64 decodes base64, of either alphabet, or hexadecimal without
// separators, and looks whether a secret is in it. What stands before the secret
// may belong to something else.
func (r *redactor) secretBase64(run []byte, depth int) bool {
	run = bytes.TrimRight(run, "=")
	if r.secretHex(run, depth) {
		return true
	}
	standard := bytes.Map(func(c rune) rune {
		switch c {
		case '-':
			return '+'
		case '_':
			return '/'
		}
		return c
	}, run)
	for shift := range min(4, len(standard)) {
		// What comes before the first error counts: the end may be cut off.
		plain := make([]byte, base64.RawStdEncoding.DecodedLen(len(standard)-shift))
		n, _ := base64.RawStdEncoding.Decode(plain, standard[shift:])
		plain = plain[:n]
		if shift == 0 && r.secretBytes(plain, depth) || secretBinary(plain) {
			return true
		}
	}
	return false
}

func (r *redactor) secretHex(digits []byte, depth int) bool {
	if i := bytes.Index(digits, []byte("0x")); i >= 0 {
		digits = digits[i+2:]
	}
	plain := make([]byte, len(digits)/2)
	n, _ := hex.Decode(plain, digits[:len(digits)/2*2])
	return n >= 16 && r.secretBytes(plain[:n], depth)
}

func (r *redactor) secretBytes(plain []byte, depth int) bool {
	if secretBinary(plain) || isCompressed(plain) {
		return true
	}
	return isText(plain) && !bytes.Equal(r.clean(plain, depth+1), plain)
}

// isText reports whether bytes are readable except the last, which may be cut.
func isText(plain []byte) bool {
	for len(plain) > 0 {
		c, size := utf8.DecodeRune(plain)
		if c == utf8.RuneError && len(plain) >= utf8.UTFMax || c < ' ' && c != '\n' && c != '\r' && c != '\t' {
			return false
		}
		plain = plain[size:]
	}
	return true
}

func secretBinary(plain []byte) bool {
	return privateDER(plain) || bytes.Contains(plain, []byte("PRIVATE KEY")) || bytes.Contains(plain, []byte("openssh-key-v1\x00"))
}

// privateDER reports whether a private key in DER begins somewhere: a sequence
// whose first element is a small version number, followed by what only private
// keys have there (PKCS #8, RFC 5958; PKCS #1, RFC 8017; SEC 1, RFC 5915; PKCS
// #12, RFC 7292). Certificates, requests and lists of revoked ones have another
// sequence there, public keys and signatures a large number.
func privateDER(der []byte) bool {
	for at := 0; ; at++ {
		i := bytes.IndexByte(der[at:], 0x30)
		if i < 0 {
			return false
		}
		at += i
		content, ok := inside(der[at:])
		if !ok || len(content) < 5 || content[0] != 0x02 || content[1] != 1 || content[2] > 3 {
			continue
		}
		version, next := content[2], content[3:]
		switch {
		case next[0] == 0x04 && version == 1, next[0] == 0x02 && version == 0 && len(next) > 2 && (next[1] >= 0x40):
			return true
		case next[0] == 0x30 && version == 3:
			content, ok := inside(next)
			return ok && len(content) > 0 && content[0] == 0x06
		case next[0] == 0x30 && version <= 1:
			algorithm, ok := inside(next)
			if !ok || len(algorithm) == 0 || algorithm[0] != 0x06 {
				continue
			}
			after := len(next) - len(algorithm) + int(length(next))
			if after >= len(next) || next[after] == 0x04 {
				return true
			}
		}
	}
}

// length returns how long the content of a DER element is that begins here.
func length(der []byte) uint {
	if der[1] < 0x80 {
		return uint(der[1])
	}
	var n uint
	for _, b := range der[2:min(len(der), 2+int(der[1]&0x7f))] {
		n = n<<8 | uint(b)
	}
	return n
}

// inside returns what follows the head of a DER element.
func inside(der []byte) ([]byte, bool) {
	if len(der) < 2 {
		return nil, false
	}
	head := 2
	if der[1] >= 0x80 {
		head += int(der[1] & 0x7f)
	}
	if head > 5 || head > len(der) {
		return nil, false
	}
	return der[head:], true
}

// isCompressed knows gzip, zlib, bzip2, xz and Zstandard by how they begin.
func isCompressed(plain []byte) bool {
	for _, magic := range []string{"\x1f\x8b\x08", "\x78\x01", "\x78\x9c", "\x78\xda", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(plain, []byte(magic)) && !isText(plain) {
			return true
		}
	}
	return false
}

// compressed removes gzip, which nobody reads without decoding it.
func (r *redactor) compressed(text []byte, _ int) []byte {
	magic := []byte("\x1f\x8b\x08")
	var edits []edit
	for at := 0; ; {
		i := bytes.Index(text[at:], magic)
		if i < 0 {
			return apply(text, edits)
		}
		at += i
		end := at + r.gzipLength(text[at:])
		edits = append(edits, edit{at, end, mark("compressed data")})
		at = end
	}
}

// gzipLength returns how long a gzip member is that text begins with. Of one
// that decodes to too much the end is not looked for.
func (r *redactor) gzipLength(text []byte) int {
	from := bytes.NewReader(text)
	decoder, err := gzip.NewReader(from)
	if err == nil {
		decoder.Multistream(false)
		n, _ := io.Copy(io.Discard, io.LimitReader(decoder, int64(max(r.budget, 0))+1)) // where it is broken it ends
		if r.budget -= int(n); r.budget < 0 {
			return len(text)
		}
	}
	return max(3, len(text)-from.Len())
}
