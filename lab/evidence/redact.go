package evidence

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
)

// Redact returns text without what would let its reader act as somebody else:
// private keys, tokens, and the values of fields that are called a password or
// the like. What is public stays: certificates, bundles, SPIFFE IDs.
//
// A private key is found as PEM, whether in lines of its own, behind the prefix
// that a log gives each line, in one line with escaped ends, or with its head or
// tail cut off; and in base64, by what it decodes to. Where it is unclear how far
// a secret goes, more is taken out rather than less.
func Redact(text []byte) []byte {
	text = redactPEM(text)
	text = jwt.ReplaceAll(text, []byte(mark("token")))
	text = redactBase64(text)
	text = bearer.ReplaceAll(text, []byte("${1}"+mark("token")))
	return field.ReplaceAllFunc(text, redactField)
}

func mark(what string) string { return "[removed: " + what + "]" }

var (
	pemBegin = regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----`)
	pemEnd   = regexp.MustCompile(`-----END [A-Z0-9 ]*PRIVATE KEY-----`)
	// keyLine is a line whose last word may be one of a key in base64.
	keyLine = regexp.MustCompile(`(?:^|\s)(?:[A-Za-z0-9+/_-]{16,}={0,2}|[A-Za-z0-9+/_-]+={1,2})\s*$`)
	// base64Run is long enough for the shortest private key there is, an Ed25519
	// key of 48 bytes, even when its end is on the next line.
	base64Run = regexp.MustCompile(`(?:[A-Za-z0-9+/_-]|\\/){40,}={0,2}`)
	// jwt is a JWS of three parts or a JWE of five; all start with {".
	jwt    = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){2,4}`)
	bearer = regexp.MustCompile(`(?i)\b(bearer\s+|authorization["']?\s*[:=]\s*["']?[a-z]+\s+)[A-Za-z0-9._~+/=-]{8,}`)
	// field is a secret's name and its value in JSON, YAML, or a log's key=value.
	field = regexp.MustCompile(`(?i)(` + secret + `["']?\s*[:=][ \t]*)("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;&{}\[\]"']+)`)
	// secretName is the whole name of a field or variable.
	secretName = regexp.MustCompile(`(?i)` + secret + `$`)
)

// secret is how the names of fields end whose values are secrets.
const secret = `(?:password|passwd|passphrase|token|client[-_]?secret|secret[-_]?key|access[-_]?key|api[-_]?key|private[-_]?key|key[-_]data|cookie)`

// redactPEM takes out PEM blocks of private keys, and what is left of those
// whose beginning or end is not in the text.
func redactPEM(text []byte) []byte {
	removed := []byte(mark("private key"))
	var out []byte
	for {
		begin, end := pemBegin.FindIndex(text), pemEnd.FindIndex(text)
		switch {
		case begin == nil && end == nil:
			return append(out, text...)
		case begin == nil || end != nil && end[0] < begin[0]:
			// The head is cut off.
			start := bytes.LastIndexByte(text[:end[0]], '\n') + 1
			out = append(append(out, text[:keyLinesBefore(text, start)]...), removed...)
			text = text[end[1]:]
		case end == nil || pemBegin.Match(text[begin[1]:max(begin[1], end[0])]):
			// The tail is cut off.
			out = append(append(out, text[:begin[0]]...), removed...)
			text = text[keyLinesAfter(text, begin[1]):]
		default:
			out = append(append(out, text[:begin[0]]...), removed...)
			text = text[end[1]:]
		}
	}
}

// keyLinesBefore returns where the lines of a key that end at start, which
// begins a line, themselves start.
func keyLinesBefore(text []byte, start int) int {
	for start > 0 {
		before := bytes.LastIndexByte(text[:start-1], '\n') + 1
		if !keyLine.Match(text[before : start-1]) {
			break
		}
		start = before
	}
	return start
}

// keyLinesAfter returns where the line that from is in ends, and with it the
// lines of a key that follow.
func keyLinesAfter(text []byte, from int) int {
	for first := true; from < len(text); first = false {
		length := bytes.IndexByte(text[from:], '\n')
		if length < 0 {
			length = len(text) - from
		}
		if !first && !keyLine.Match(text[from:from+length]) {
			return from - 1 // the end of the line before stays
		}
		from = min(from+length+1, len(text))
	}
	return from
}

// redactBase64 takes out what decodes to a private key or to text that holds a
// secret, such as a kubeconfig.
func redactBase64(text []byte) []byte {
	var out []byte
	for {
		at := base64Run.FindIndex(text)
		if at == nil {
			return append(out, text...)
		}
		if !secretInside(text[at[0]:at[1]]) {
			out, text = append(out, text[:at[1]]...), text[at[1]:]
			continue
		}
		out = append(append(out, text[:at[0]]...), mark("private key")...)
		rest := at[1]
		if rest < len(text) && text[rest] == '\n' {
			// Long base64 is broken into lines, of which only the first shows
			// what it is.
			rest = keyLinesAfter(text, rest)
		}
		text = text[rest:]
	}
}

// secretInside decodes base64 and looks whether a secret is in it.
func secretInside(run []byte) bool {
	run = bytes.ReplaceAll(run, []byte(`\/`), []byte("/"))
	run = bytes.TrimRight(run, "=")
	encoding := base64.RawStdEncoding
	if bytes.ContainsAny(run, "-_") {
		encoding = base64.RawURLEncoding
	}
	plain := make([]byte, encoding.DecodedLen(len(run)))
	// What comes before the first error counts: the end may be cut off.
	n, _ := encoding.Decode(plain, run)
	plain = plain[:n]
	return isPrivateKey(plain) || !bytes.Equal(Redact(plain), plain)
}

// isPrivateKey reports whether DER starts as private keys do: a sequence whose
// first element is a small version number (PKCS #8, RFC 5958; PKCS #1, RFC 8017;
// SEC 1, RFC 5915). Certificates and public keys start with another sequence or
// a large number.
func isPrivateKey(der []byte) bool {
	if len(der) < 8 || der[0] != 0x30 {
		return false
	}
	content := der[2:]
	if long := der[1]; long > 0x80 {
		content = der[min(len(der), 2+int(long-0x80)):]
	}
	return len(content) > 3 && content[0] == 0x02 && content[1] == 1 && content[2] <= 3
}

// redactField takes out the value of a pair that field has found.
func redactField(pair []byte) []byte {
	parts := field.FindSubmatch(pair)
	if harmless(strings.Trim(string(parts[2]), `"'`)) {
		return pair
	}
	quote := ""
	if c := parts[2][0]; c == '"' || c == '\'' {
		quote = string(c)
	}
	return slices.Concat(parts[1], []byte(quote+mark("secret")+quote))
}

// harmless values say that there is no secret, or that it has been taken out.
func harmless(value string) bool {
	switch strings.ToLower(value) {
	case "", "true", "false", "null", "<nil>":
		return true
	}
	return strings.HasPrefix(value, "[removed")
}

// redactTree takes the secrets out of decoded JSON.
func redactTree(node any) any {
	switch n := node.(type) {
	case string:
		return string(Redact([]byte(n)))
	case []any:
		for i := range n {
			n[i] = redactTree(n[i])
		}
	case map[string]any:
		variable, _ := n["name"].(string)
		_, jwk := n["kty"]
		for key, value := range n {
			text, isText := value.(string)
			switch {
			case isText && !harmless(text) && (isSecret(key) || key == "value" && isSecret(variable) || jwk && privateJWK(key)):
				n[key] = mark("secret")
			default:
				n[key] = redactTree(value)
			}
		}
	}
	return node
}

func isSecret(name string) bool { return secretName.MatchString(name) }

// privateJWK names the members of a JSON Web Key that are not public (RFC 7518,
// section 6).
func privateJWK(member string) bool {
	return slices.Contains([]string{"d", "p", "q", "dp", "dq", "qi", "k"}, member)
}
