package redact

import (
	"slices"
	"strings"
)

// maxName is how long the name of a field may be.
const maxName = 128

// secretWords are how the names of fields end whose values are secrets, in lower
// case and without what joins words.
var secretWords = []string{
	"password", "passwords", "passwd", "passphrase", "passcode", "pwd",
	"secret", "secrets", "credential", "credentials",
	"token", "tokens", "cookie", "cookies", "authorization",
	"apikey", "privatekey", "secretkey", "accesskey", "signingkey", "encryptionkey", "masterkey", "sharedkey", "sessionkey",
	"keydata", "dockercfg", "dockerconfigjson", "auths",
}

// secretNames are whole names.
var secretNames = []string{
	"psk", "priv", "privateexponent", "prime1", "prime2", "exponent1", "exponent2", "coefficient",
}

// written are what names end with that tell how a secret is written.
var written = []string{"value", "base64", "b64", "string", "hex", "pem", "der", "raw", "hash"}

// isSecret reports whether what a name names is a secret.
func isSecret(name string) bool {
	word := normal(name)
	return word != "" && (endsWith(word, secretWords) || slices.Contains(secretNames, word) || lastWord(name) == "pass")
}

// isPhrase reports whether what a name names may have spaces in it.
func isPhrase(name string) bool {
	return endsWith(normal(name), secretWords[:6]) || lastWord(name) == "pass"
}

// isHeader reports whether a name is that of an HTTP header whose whole value is
// secret.
func isHeader(name string) bool {
	return endsWith(normal(name), []string{"cookie", "authorization"})
}

func endsWith(word string, all []string) bool {
	return slices.ContainsFunc(all, func(s string) bool { return strings.HasSuffix(word, s) })
}

// normal returns a name as secretWords has it.
func normal(name string) string {
	if len(name) > maxName {
		name = name[len(name)-maxName:]
	}
	word := strings.Map(func(c rune) rune {
		if strings.ContainsRune("-_. ", c) {
			return -1
		}
		return c
	}, strings.ToLower(name))
	for {
		short := word
		for _, w := range written {
			short = strings.TrimSuffix(short, w)
		}
		if short == word {
			short = strings.TrimRight(word, "0123456789")
		}
		if short == word || short == "" || slices.Contains(secretNames, word) {
			return word
		}
		word = short
	}
}

// lastWord returns the last word of a name whose words are joined by a sign.
func lastWord(name string) string {
	return strings.ToLower(name[strings.LastIndexAny(name, "-_. ")+1:])
}

// isName and isValue are how a pair calls its halves.
func isName(key string) bool {
	return slices.Contains([]string{"name", "key", "variable", "field", "header"}, strings.ToLower(key))
}

func isValue(key string) bool {
	return slices.Contains([]string{"value", "val", "values"}, strings.ToLower(key))
}

// privateJWK names the members of a JSON Web Key that are not public (RFC 7518,
// section 6).
func privateJWK(member string) bool {
	return slices.Contains([]string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}, member)
}

// ofSecret names the fields of a Kubernetes Secret that hold its content.
func ofSecret(key string) bool { return key == "data" || key == "stringData" }

// harmless values say that there is no secret, or that it has been removed.
func harmless(value string) bool {
	switch strings.ToLower(value) {
	case "", "true", "false", "null", "nil", "<nil>", "none", "{}", "[]":
		return true
	}
	inner, marked := strings.CutPrefix(value, "[removed: ")
	inner, closed := strings.CutSuffix(inner, "]")
	return marked && closed && strings.Trim(inner, "abcdefghijklmnopqrstuvwxyz ") == "" && len(inner) < 24
}
