package redact

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
)

var (
	// jwt is a JWS of three parts or a JWE of five; all start with {".
	jwt    = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){2,4}`)
	age    = regexp.MustCompile(`AGE-SECRET-KEY-1[A-Z0-9]+`)
	bearer = regexp.MustCompile(`(?i)\b((?:bearer|basic)\s+)([^\s"'\[]{8,})`)
	// mysql is a name of a data source as Go's MySQL driver has it.
	mysql = regexp.MustCompile(`[^\s"'/:@]+:[^\s"']*@(tcp|unix)\(`)
	armor = regexp.MustCompile(`-----(BEGIN|END) [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----`)
	// armorHead is a line that a PGP key may have before its content.
	armorHead = regexp.MustCompile(`^\s*(?:(?:Version|Comment|Hash|Charset|MessageID|Proc-Type|DEK-Info): .*)?\s*$`)
)

// forms removes tokens that are known by their form alone. An expression is tried
// only where a part of it is found, which is many times as fast.
func (r *redactor) forms(text []byte, _ int) []byte {
	if bytes.Contains(text, []byte("eyJ")) {
		text = jwt.ReplaceAll(text, []byte(mark("token")))
	}
	if bytes.Contains(text, []byte("AGE-SECRET-KEY-1")) {
		text = age.ReplaceAll(text, []byte(mark("private key")))
	}
	if bytes.Contains(text, []byte("@tcp(")) || bytes.Contains(text, []byte("@unix(")) {
		text = mysql.ReplaceAll(text, []byte(mark("secret")+"@${1}("))
	}
	return userinfo(kubeadm(bearers(text)))
}

func bearers(text []byte) []byte {
	there := func(scheme string) bool { return bytes.Contains(text, []byte(scheme)) }
	if !slices.ContainsFunc([]string{"bearer", "Bearer", "BEARER", "basic", "Basic", "BASIC"}, there) {
		return text
	}
	return bearer.ReplaceAllFunc(text, func(found []byte) []byte {
		parts := bearer.FindSubmatch(found)
		if slices.Contains([]string{"authentication", "authorization", "credentials", "constraints"}, strings.ToLower(string(bytes.TrimRight(parts[2], ".,:;)")))) {
			return found
		}
		return slices.Concat(parts[1], []byte(mark("token")))
	})
}

// kubeadm removes bootstrap tokens: six characters, a dot and sixteen more.
func kubeadm(text []byte) []byte {
	const id, secret = 6, 16
	wordEnd := func(at, step int) int {
		for n := 0; n <= secret && at >= 0 && at < len(text) && (isAlphanumeric(text[at]) || text[at] == '_'); n++ {
			at += step
		}
		return at
	}
	var edits []edit
	for at := 0; ; at++ {
		i := bytes.IndexByte(text[at:], '.')
		if i < 0 {
			return apply(text, edits)
		}
		at += i
		start, end := wordEnd(at-1, -1)+1, wordEnd(at+1, 1)
		if word := text[start:end]; at-start == id && end-at-1 == secret && !bytes.ContainsAny(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") {
			edits = append(edits, edit{start, end, mark("token")})
		}
	}
}

// userinfo removes the names and passwords of URLs.
func userinfo(text []byte) []byte {
	var edits []edit
	end := 0
	for at := 0; ; {
		i := bytes.Index(text[at:], []byte("://"))
		if i < 0 {
			return apply(text, edits)
		}
		start := at + i + 3
		end = max(end, start)
		for end < len(text) && strings.IndexByte(" \t\r\n\"'`<>", text[end]) < 0 {
			end++
		}
		host := text[start:end]
		if slash := bytes.IndexAny(host, "/?#"); slash >= 0 && plainHost(host[:slash]) {
			host = host[:slash]
		}
		if sign := bytes.LastIndexByte(host, '@'); sign > 0 && !harmless(string(host[:sign])) {
			edits = append(edits, edit{start, start + sign, mark("secret")})
		}
		at = start + len(host)
	}
}

// plainHost reports whether text is a host, with a port or without, or has its
// own sign that ends the userinfo.
func plainHost(text []byte) bool {
	if bytes.IndexByte(text, '@') >= 0 {
		return true
	}
	colon := bytes.LastIndexByte(text, ':')
	return colon < 0 || bytes.HasPrefix(text, []byte("[")) || len(bytes.Trim(text[colon+1:], "0123456789")) == 0
}

// pem removes private keys in PEM and PGP's armor: in lines of their own, behind
// the prefix that a log gives each line, in one line with escaped ends, or with
// the head or the tail cut off.
func (r *redactor) pem(text []byte, _ int) []byte {
	if !bytes.Contains(text, []byte("PRIVATE KEY")) {
		return text
	}
	found := armor.FindAllSubmatchIndex(text, -1)
	isBegin := func(i int) bool { return text[found[i][2]] == 'B' }
	var edits []edit
	done := 0
	for i := 0; i < len(found); i++ {
		start, end := found[i][0], found[i][1]
		switch {
		case start < done:
			continue
		case !isBegin(i): // the head is cut off
			start = keyLinesBefore(text, done+bytes.LastIndexByte(text[done:start], '\n')+1, done)
		case i+1 < len(found) && !isBegin(i+1):
			i++
			end = found[i][1]
		default: // the tail is cut off
			limit := len(text)
			if i+1 < len(found) {
				limit = found[i+1][0]
			}
			end = keyLinesAfter(text, end, limit)
		}
		edits = append(edits, edit{start, end, mark("private key")})
		done = end
	}
	return apply(text, edits)
}

// keyLinesBefore returns where the lines of a key that end at start, which
// begins a line, themselves start; not before from.
func keyLinesBefore(text []byte, start, from int) int {
	for start > from {
		before := from + bytes.LastIndexByte(text[from:start-1], '\n') + 1
		if !isKeyLine(text[before : start-1]) {
			break
		}
		start = before
	}
	return start
}

// keyLinesAfter returns where the line that at is in ends, and with it the lines
// of a key that follow; not after limit.
func keyLinesAfter(text []byte, at, limit int) int {
	text = text[:limit]
	end := lineEnd(text, at)
	head := true
	for end+1 < limit {
		next := lineEnd(text, end+1)
		line := text[end+1 : next]
		isKey := isKeyLine(line)
		if !isKey && (!head || !armorHead.Match(line)) {
			break
		}
		head = head && !isKey
		end = next
	}
	return end
}
