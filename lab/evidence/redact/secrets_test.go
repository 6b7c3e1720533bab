package redact

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
)

// canary is a secret that nothing knows by its form.
const canary = "Tr0ub4dor&3,x"

func escaped(text string) string {
	out, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string always encodes
	}
	return string(out)
}

func logged(args ...any) string {
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("it starts", args...)
	return out.String()
}

func zipped(text string) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write([]byte(text)) // into memory
	_ = w.Close()
	return out.Bytes()
}

// TestCanaries hides a secret in many shapes. What stands after it must stay.
func TestCanaries(t *testing.T) {
	k := keys(t)["EC in PKCS #8"]
	inner := `{"user":"x","password":"` + canary + `"}`
	kubeconfig := `{"apiVersion":"v1","kind":"Config","users":[{"name":"b","user":{"token":"` + canary + `"}}]}`
	applied := escaped(`{"apiVersion":"v1","kind":"Secret","data":{"ca":"` + canary + `"}}`)
	shapes := map[string]string{
		"URL userinfo":                     "dial postgres://app:" + canary + "@db:5432/app?x=1",
		"URL userinfo with a slash":        "dial postgres://app:" + canary + "/2@db:5432/app",
		"URL userinfo without a name":      "clone https://" + canary + "@example.org/x.git",
		"name of a MySQL source":           "open app:" + canary + "@tcp(db:3306)/app",
		"keywords of PostgreSQL":           "host=db password='" + canary + "' dbname=app",
		"JSON":                             inner,
		"JSON in a line":                   "got " + inner + " from x",
		"JSON in a string":                 `{"body":` + escaped(inner) + `}`,
		"JSON in a string in a string":     `{"body":` + escaped(`{"body":`+escaped(inner)+`}`) + `}`,
		"JSON that is cut off":             `got {"body":` + strings.TrimSuffix(escaped(inner), `}"`),
		"JSON without its begin":           strings.TrimPrefix(escaped(escaped(inner)), `"\"{`),
		"JSON by slog":                     logged("body", inner),
		"JSON by slog, twice":              logged("body", escaped(inner)),
		"YAML by slog":                     logged("config", "tokens:\n  - one\n  - "+canary+"\nuser: x"),
		"JSON below a secret key":          `{"credentials":{"a":["` + canary + `"],"b":{"c":"` + canary + `"}}}`,
		"JSON, broken, below a secret key": `x {"credentials":{"a":["` + canary + `"],"b":{"c":"` + canary + `"}}, oops`,
		"JSON, number":                     `{"password":` + strings.Repeat("73", 8) + `}` + strings.Repeat(" ", 0),
		"last applied":                     `{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":` + applied + `}}`,
		"name and value":                   `{"env":[{"name":"DB_PASSWORD","value":"` + canary + `"}]}`,
		"value and name":                   `{"env":[{"value":"` + canary + `","name":"DB_PASSWORD"}]}`,
		"name and value in a string":       `{"note":` + escaped(`{"name":"DB_PASSWORD","value":"`+canary+`"}`) + `}`,
		"name and value, cut off":          `{"name":"DB_PASSWORD","value":"` + canary,
		"value and name, cut off":          `{"value":"` + canary + `","name":"DB_PASSWORD"`,
		"name and value by Go":             fmt.Sprintf("%+v", struct{ Name, Value string }{"DB_PASSWORD", canary}),
		"name and value in YAML":           "env:\n- name: DB_PASSWORD\n  value: " + canary,
		"value and name in YAML":           "env:\n- value: " + canary + "\n  name: DB_PASSWORD",
		"map by Go":                        fmt.Sprintf("%v", map[string]string{"password": canary, "user": "x"}),
		"header by Go":                     fmt.Sprintf("%v", http.Header{"Cookie": {"a=1; session=" + canary}, "Accept": {"x"}}),
		"header line":                      "Cookie: a=1; session=" + canary,
		"header in a command":              `curl -H "Authorization: Digest user, response=` + canary + `" http://x`,
		"header in JSON":                   `{"headers":[["Authorization","Custom ` + canary + `"]]}`,
		"argument":                         "run --password " + canary + " --db x",
		"argument in quotes":               `run --password "a b ` + canary + `" --db x`,
		"argument in JSON":                 `{"args":["--password","` + canary + `","--db"]}`,
		"argument in JSON in a string":     escaped(`["--password","` + canary + `"]`),
		"argument in YAML":                 "args:\n- --password\n- " + canary + "\n- --db",
		"argument by Go":                   fmt.Sprintf("%q", []string{"--api-token", canary, "--db"}),
		"argument with its name":           "run --token=" + canary + " --db x",
		"user of curl":                     "curl -u app:" + canary + " http://x",
		"YAML":                             "password: " + canary,
		"YAML with spaces":                 "password: correct horse " + canary,
		"YAML block":                       "password: |\n  one\n  " + canary + "\nuser: x",
		"YAML block with an empty line":    "  password: >-\n    one\n\n    " + canary + "\n  user: x",
		"YAML below a secret key":          "credentials:\n  a:\n    - " + canary + "\n  b: x",
		"YAML list at the same column":     "tokens:\n- " + canary + "\n- x",
		"YAML in flow":                     "db: {password: " + canary + ", user: x}",
		"YAML in a string":                 `{"values":` + escaped("db:\n  password: correct horse "+canary+"\n") + `}`,
		"YAML of a Secret":                 "kind: Secret\ndata:\n  ca.crt: " + canary + "\nmetadata: {}",
		"YAML in quotes":                   "password: \"correct horse\n  " + canary + "\"",
		"cut at a comma":                   "password=a," + canary,
		"cut at a bracket":                 "password=a}" + canary,
		"cut at a quote":                   `password=a"` + canary,
		"quoted next to its name":          `refused password "` + canary + `" of x`,
		"prose":                            "the password: correct horse " + canary,
		"backquotes":                       "password=`" + canary + "`",
		"single quotes in JSON":            `{"cmd":"sh -c 'DB_PASSWORD=` + canary + ` run'"}`,
		"JWK in a line":                    `got {"kty":"EC","crv":"P-256","x":"AAAA","d":"` + canary + `"}`,
		"JWK in a string":                  `msg=` + escaped(`{"keys":[{"kty":"oct","k":"`+canary+`"}]}`),
		"JWK, cut off":                     `got {"kty":"EC","crv":"P-256","d":"` + canary + `abcdefgh`,
		"JWK of RSA":                       `got {"kty":"RSA","n":"AAAA","e":"AQAB","d":"` + canary + `","p":"` + canary + `","q":"` + canary + `","dp":"` + canary + `","dq":"` + canary + `","qi":"` + canary + `"}`,
		"JWK, unquoted":                    `got map[kty:EC d:` + canary + `abcdefgh x:AAAA]`,
		"base64 of JSON":                   "x " + base64.StdEncoding.EncodeToString([]byte(inner)) + " y",
		"kubeconfig":                       "users:\n- name: b\n  user:\n    token: " + canary + "\n",
		"kubeconfig in JSON":               kubeconfig,
		"kubeconfig in JSON in a string":   `{"data":` + escaped(kubeconfig) + `}`,
		"kubeconfig in a Secret":           `{"kind":"Secret","data":{"b":"` + base64.StdEncoding.EncodeToString([]byte(kubeconfig)) + `"}}`,
		"kubeconfig in base64":             "b: " + base64.StdEncoding.EncodeToString([]byte(kubeconfig)) + " y",
		"kubeconfig by Go":                 fmt.Sprintf("refuses map[name:b user:map[token:%s]] of b", canary),
		"docker's login":                   `{".dockerconfigjson":"` + canary + `","auths":{"r":{"auth":"` + canary + `"}}}`,
		"openssl":                          "priv:\n    " + canary + ":ab\n    " + canary + "\npub:\n    04:1b",
		"bearer":                           "sent Bearer 0" + canary,
	}
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			text := "before it.\n" + shape + "\nspiffe://cluster1.com/after says \"well\"\n"
			got := string(textOf([]byte(text)))
			for _, part := range []string{"Tr0ub4dor", "3,x", "horse", strings.Repeat("73", 8), base64.StdEncoding.EncodeToString([]byte(inner))[8:24], base64.StdEncoding.EncodeToString([]byte(kubeconfig))[96:112]} {
				if strings.Contains(got, part) {
					t.Errorf("%q is in\n%s\nof\n%s", part, got, text)
				}
			}
			if !strings.Contains(got, "[removed: ") || !strings.HasPrefix(got, "before it.\n") || !strings.HasSuffix(got, "\nspiffe://cluster1.com/after says \"well\"\n") {
				t.Errorf("more is gone, or nothing says so:\n%s", got)
			}
			if json.Valid([]byte(shape)) && !json.Valid(textOf([]byte(shape))) {
				t.Errorf("no JSON any more: %s", textOf([]byte(shape)))
			}
			if again := string(textOf([]byte(got))); again != got {
				t.Errorf("a second time it is\n%s\nbefore\n%s", again, got)
			}
		})
	}
	der := hex.EncodeToString(k.der)
	pgp := "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 1\n\n" + broken(base64.StdEncoding.EncodeToString(k.der), 64) + "=AbCd\n"
	colons := func(width int) string {
		var b strings.Builder
		for i, c := range k.der {
			if i > 0 {
				b.WriteString(":")
				if i%width == 0 {
					b.WriteString("\n    ")
				}
			}
			fmt.Fprintf(&b, "%02x", c)
		}
		return b.String()
	}
	secrets := append(k.fragments(), der[8:40], der[80:120], colons(1000)[90:120], fmt.Sprintf("%d", k.der)[60:90], `\x30\x81`)
	for name, shape := range map[string]string{
		"hex":                      "key " + der,
		"hex in capitals":          "key=0x" + strings.ToUpper(der),
		"hex with colons":          "key " + colons(1000),
		"hex with spaces":          fmt.Sprintf("key % x", k.der),
		"hex with commas":          fmt.Sprintf("key %#v", k.der),
		"numbers by Go":            fmt.Sprintf("key %v", k.der),
		"base64 behind a path":     "key/" + base64.StdEncoding.EncodeToString(k.der),
		"base64 behind a name":     "data-" + base64.RawURLEncoding.EncodeToString(k.der),
		"base64 behind base64":     "x " + strings.Repeat("QUJD", 8) + "==" + base64.StdEncoding.EncodeToString(k.der),
		"PEM in base64 behind one": "x/" + base64.StdEncoding.EncodeToString([]byte(k.pem)),
		"wrapped, key on line 3":   broken(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("clusters: []\n", 9)+"client-key-data: "+base64.StdEncoding.EncodeToString([]byte(k.pem)))), 76),
		"PGP":                      pgp + "-----END PGP PRIVATE KEY BLOCK-----",
		"PGP without its tail":     strings.TrimSuffix(pgp, "=AbCd\n"),
		"gzip":                     "data " + string(zipped(k.pem)) + " end",
		"gzip in base64":           "data " + base64.StdEncoding.EncodeToString(zipped(k.pem)) + " end",
		"gzip in base64 twice":     "data " + base64.StdEncoding.EncodeToString([]byte(base64.StdEncoding.EncodeToString(zipped(k.pem)))) + " end",
		"OpenSSH":                  "-----BEGIN OPENSSH PRIVATE KEY-----\n" + broken(base64.StdEncoding.EncodeToString(k.der), 70) + "-----END OPENSSH PRIVATE KEY-----",
		"kubeadm":                  "kubeadm join --discovery x 0a1b2c." + der[8:24],
		"age":                      "AGE-SECRET-KEY-1" + strings.ToUpper(der[8:40]),
	} {
		t.Run(name, func(t *testing.T) {
			got := string(textOf([]byte("before it.\n" + shape + "\nit goes on.\n")))
			for _, secret := range append(secrets, der[8:24], strings.ToUpper(der[8:40]), "\x1f\x8b") {
				if strings.Contains(got, secret) {
					t.Fatalf("%q is in\n%s", secret, got)
				}
			}
			if zip := zipped(k.pem); bytes.Contains([]byte(got), zip[20:40]) || strings.Contains(got, base64.StdEncoding.EncodeToString(zip)[20:40]) {
				t.Errorf("compressed data is in\n%s", got)
			}
			if !strings.Contains(got, "[removed: ") || !strings.HasPrefix(got, "before it.\n") || !strings.HasSuffix(got, "\nit goes on.\n") {
				t.Errorf("more is gone, or nothing says so:\n%s", got)
			}
		})
	}
}

// TestArmor has keys whose content shows nothing: only the lines around it tell
// what it is.
func TestArmor(t *testing.T) {
	content := strings.Repeat("abcDEF0123456789", 4) + "\n"
	pgp := "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 1\n\n" + content + content + "=AbCd\n"
	locked := "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n" + content + content
	const pgpEnd, lockedEnd = "-----END PGP PRIVATE KEY BLOCK-----\n", "-----END RSA PRIVATE KEY-----\n"
	for name, text := range map[string]string{
		"PGP":                pgp + pgpEnd,
		"PGP, no tail":       pgp,
		"PGP, no head":       content + content + "=AbCd\n" + pgpEnd,
		"locked":             locked + lockedEnd,
		"locked, no tail":    locked,
		"locked, no head":    content + content + lockedEnd,
		"locked, prefixed":   prefixed(locked + lockedEnd),
		"locked in a line":   "key " + strings.ReplaceAll(locked+lockedEnd, "\n", `\n`) + "\n",
		"locked, one by one": locked + locked + lockedEnd,
	} {
		t.Run(name, func(t *testing.T) {
			got := string(textOf([]byte("before it.\n" + text + "it goes on.\n")))
			if strings.Contains(got, "abcDEF") || strings.Contains(got, "AbCd") || !strings.HasPrefix(got, "before it.\n") || !strings.HasSuffix(got, "it goes on.\n") {
				t.Errorf("got\n%s", got)
			}
		})
	}
}

// TestEachSecretWord has the end of each name whose value is secret.
func TestEachSecretWord(t *testing.T) {
	for _, name := range []string{
		"password", "userPasswords", "DB_PASSWD", "passphrase", "passcode", "MYSQL_PWD", "pass", "db-pass", "client_secret", "clientSecret", "secrets",
		"credential", "awsCredentials", "token", "joinToken", "tokens", "session-cookie", "cookies", "Authorization", "Proxy-Authorization",
		"api-key", "apiKey", "private_key", "secret-key", "AWS_SECRET_ACCESS_KEY", "access_key", "signing-key", "encryptionKey", "masterKey", "sharedKey",
		"sessionKey", "client-key-data", ".dockercfg", ".dockerconfigjson", "auths", "psk", "priv", "privateExponent", "prime1", "prime2", "exponent1", "exponent2", "coefficient",
		"password2", "tokenValue", "private_key_pem", "key-data-base64", "secretString", "tokenHash", "password_b64", "token_hex", "secretRaw", "private-key-der",
	} {
		for shape, text := range map[string]string{
			"JSON": `{"` + name + `":"` + canary + `"}`,
			"YAML": name + ": " + canary,
			"log":  "x " + name + "=" + canary,
			"cut":  `"` + name + `":"` + canary,
		} {
			if got := string(textOf([]byte(text))); strings.Contains(got, "Tr0ub4dor") || !strings.Contains(got, name) {
				t.Errorf("%s: %s becomes %s", shape, text, got)
			}
		}
	}
}
