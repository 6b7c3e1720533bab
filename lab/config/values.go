package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// value is what a field takes: a scalar, a list of items, or an object.
type value struct {
	// kind is what the reference page calls it, limits the page's range.
	kind, limits string
	// want is the right form, as a message ends with it.
	want string

	// tag is the YAML type of a scalar. refuse says why its text is not taken
	// ("" when it is), and a better right form than want where it knows one.
	tag    string
	refuse func(text string) (cause, want string)
	schema jsonschema.Schema
	// name says that it is what other fields refer to: text of the wrong form is
	// read on, or whatever refers to it would seem wrong too.
	name bool

	item     *value
	min, max int // length of a list

	object *object
	// free says that it is an object of which nothing is known, except where values says
	// what each of its fields takes, and keys what each is called.
	free         bool
	keys, values *value
}

// choice is sets of fields of which exactly one has to be there.
type choice [][]string

// object is a mapping with fields of its own.
type object struct {
	says   string
	fields []field
	// choices are lists of sets of fields; exactly one set of each has to be there.
	choices []choice
	// unsupported names fields that one may well look for here, with what to do
	// instead.
	unsupported map[string]string
	// elsewhere names fields that belong somewhere else, with the right place.
	elsewhere map[string]string
}

// field is one line of the table that fields.go holds.
type field struct {
	name     string
	value    value
	required bool
	// fallback is the default; where it follows from other fields, derived says
	// how. Both are empty where a missing field stays missing.
	fallback any
	derived  string
	says     string
}

func (o *object) names() []string {
	names := make([]string, len(o.fields))
	for i, f := range o.fields {
		names[i] = f.name
	}
	return names
}

func (o *object) list() string { return "the fields here are " + strings.Join(o.names(), ", ") }

func (o *object) field(name string) (field, bool) {
	i := slices.IndexFunc(o.fields, func(f field) bool { return f.name == name })
	if i < 0 {
		return field{}, false
	}
	return o.fields[i], true
}

// hasList reports whether a field of the object is a list.
func (o *object) hasList(name string) bool {
	f, known := o.field(name)
	return known && f.value.item != nil
}

const notSupported = " is not supported by this version of fedlab"

func nested(o *object) value {
	return value{kind: "object", want: "an object with the fields " + strings.Join(o.names(), ", "), object: o}
}

func list(item value, min, max int) value {
	v := value{
		kind: "list of " + item.kind + "s", limits: fmt.Sprintf("%d to %d", min, max),
		want: "a list of " + item.kind + "s", item: &item, min: min, max: max,
	}
	if item.object != nil {
		v.want = `a list, each entry an object that starts with "- "`
	}
	if min == max {
		v.limits = fmt.Sprintf("exactly %d", max)
	}
	return v
}

// oneOf takes one of the words; not says of further words, which one may well
// look for, what to do instead.
func oneOf(kind string, not map[string]string, words ...string) value {
	v := value{kind: kind, tag: "!!str", want: choose("", words), limits: strings.Join(words, ", ")}
	v.refuse = func(s string) (string, string) {
		if slices.Contains(words, s) {
			return "", ""
		}
		if instead, ok := not[s]; ok {
			return kind + " " + quote(s) + notSupported, instead
		}
		return "unknown " + kind + " " + quote(s), choose(s, words)
	}
	v.schema = jsonschema.Schema{Type: "string"}
	for _, w := range words {
		v.schema.Enum = append(v.schema.Enum, w)
	}
	return v
}

// matching takes text of a form; form says in words what the pattern says.
func matching(kind, pattern string, most int, form, example string) value {
	re := regexp.MustCompile(pattern)
	v := value{
		kind:   kind,
		limits: form,
		want:   fmt.Sprintf("a %s such as %q (%s)", kind, example, form),
		tag:    "!!str",
		schema: jsonschema.Schema{Type: "string", Pattern: pattern, MaxLength: jsonschema.Ptr(most)},
	}
	v.refuse = func(s string) (string, string) {
		if n := utf8.RuneCountInString(s); n > most {
			return fmt.Sprintf("%s has %d characters", quote(s), n), fmt.Sprintf("at most %d characters", most)
		}
		if re.MatchString(s) {
			return "", ""
		}
		bare := strings.TrimPrefix(strings.TrimSpace(s), "spiffe://")
		lower := strings.ToLower(bare)
		for _, near := range []string{lower, strings.ToUpper(bare), strings.ReplaceAll(lower, "_", "-")} {
			if re.MatchString(near) {
				return quote(s) + " is no " + kind, fmt.Sprintf("write %q", near)
			}
		}
		return quote(s) + " is no " + kind, ""
	}
	return v
}

// label takes a DNS label (RFC 1123, section 2.1).
func label(most int, example string) value {
	v := matching("DNS label", "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", most,
		fmt.Sprintf("lower-case letters, digits and inner dashes, at most %d", most), example)
	v.name = true
	return v
}

// trustDomain takes what SPIFFE takes (SPIFFE-ID, section 2.1).
func trustDomain() value {
	v := matching("trust domain", "^[a-z0-9._-]+$", 255,
		"lower-case letters, digits, dots, dashes and underscores, at most 255", "cluster1.com")
	v.name = true
	return v
}

// maxSubject is the upper bound of the attributes of a distinguished name (RFC
// 5280, appendix A.1).
const maxSubject = 64

// filePath takes a path, relative to the lab file.
func filePath(example string) value {
	return matching("path", `^[^\x00]+$`, 4096, "a path, relative to the lab file", example)
}

// imageName takes what a container's field image may have, with a tag.
func imageName() value {
	return matching("name of an image", `^[a-z0-9][a-z0-9._:/-]*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`, 255, "repository and tag", "example.test/payments:dev")
}

// subdomainName takes what Kubernetes takes for the name of most objects (RFC 1123).
func subdomainName(example string) value {
	return matching("name of an object", `^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`, 253, "lower-case letters, digits, dots and inner dashes", example)
}

// webName takes a DNS name of at least two labels (RFC 1123, section 2.1), whose last one
// is not of digits alone: it is no address.
func webName() value {
	return matching("DNS name", `^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`, 253,
		"at least two labels of lower-case letters, digits and inner dashes", "spire-bundle.gcp.company.com")
}

// webPath takes what a URL has after its host: a path and maybe a query (RFC 3986, sections
// 3.3 and 3.4), of characters that need no escape in any file.
func webPath() value {
	return matching("path of a URL", `^(/|(/\.?[A-Za-z0-9][A-Za-z0-9._~-]*)+/?)(\?[A-Za-z0-9._~=&-]+)?$`, 255,
		"a slash, parts of letters, digits, dots, dashes, underscores and tildes with slashes between them, and a query after a question mark if it has one", "/federation?format=spiffe")
}

// template takes text for the controller manager to fill in.
func template(kind, example string) value {
	return matching(kind, `^[^\s].*$`, 1024, "text, or a template of a ClusterSPIFFEID", example)
}

// free takes an object whose fields somebody else knows.
func free() value {
	return value{kind: "object", limits: "what the chart takes", want: "an object, such as {replicas: 2}", free: true, schema: jsonschema.Schema{Type: "object"}}
}

// labels takes labels of Kubernetes objects.
func labels() value {
	text := matching("value of a label", `^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$`, 63, "letters, digits, and inner dots, dashes and underscores, at most 63", "frontend")
	key := matching("name of a label", `^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`, 317, "letters, digits, and inner dots, dashes and underscores, after a host name and a slash if it has one", "app.kubernetes.io/name")
	return value{
		kind: "object", limits: "labels of Kubernetes", want: "an object of labels, such as {app: frontend}", free: true, keys: &key, values: &text,
		schema: jsonschema.Schema{Type: "object", AdditionalProperties: &text.schema},
	}
}

// selector takes a selector of an entry.
func selector() value {
	return matching("selector", `^[^:\s]+:\S.*$`, 1024, "a type, a colon and a value", "k8s:sa:payments")
}

// hostName takes what SPIRE takes for a DNS name (its pkg/common/x509util, ValidateLabel).
func hostName() value {
	const form = "a host name, or * and a dot before one"
	return value{
		kind: "DNS name", limits: form, tag: "!!str", want: `a DNS name such as "payments.shop.svc" (` + form + ")",
		refuse: func(s string) (string, string) {
			bare := strings.TrimPrefix(s, "*.")
			cause := noHostName(bare)
			switch {
			case cause == "" && !regexp.MustCompile(`^[a-z0-9.-]+$`).MatchString(bare):
				cause = "there are only lower-case letters, digits, dots and dashes in it"
			case cause == "":
				return "", ""
			}
			return quote(s) + " is no DNS name: " + cause, ""
		},
		schema: jsonschema.Schema{Type: "string", Pattern: `^(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*$`},
	}
}

func subject(example string) value {
	return matching("text", `^[\p{L}\p{M}\p{N}\p{P}\p{S} ]+$`, maxSubject,
		fmt.Sprintf("printable characters, 1 to %d", maxSubject), example)
}

// numberTo is a whole number from 1.
func numberTo(most int) value {
	limits := fmt.Sprintf("1 to %d", most)
	return value{
		kind: "number", limits: limits, want: "a whole number from " + limits, tag: "!!int",
		refuse: func(s string) (string, string) {
			n, err := strconv.Atoi(s)
			switch {
			case err != nil || strconv.Itoa(n) != s:
				return quote(s) + " is no plain decimal number", ""
			case n < 1 || n > most:
				return s + " is out of range", ""
			}
			return "", ""
		},
		schema: jsonschema.Schema{Type: "integer", Minimum: jsonschema.Ptr(1.0), Maximum: jsonschema.Ptr(float64(most))},
	}
}

// boolean takes the two words of YAML 1.2 and JSON, not yes, on or True.
func boolean() value {
	return value{
		kind: "boolean", limits: "true, false", want: "write true or false", tag: "!!bool",
		refuse: func(s string) (string, string) {
			if s == "true" || s == "false" {
				return "", ""
			}
			cause := quote(s) + " is no boolean"
			switch strings.ToLower(s) {
			case "true", "yes", "on":
				return cause, "write true"
			case "false", "no", "off":
				return cause, "write false"
			}
			return cause, ""
		},
		schema: jsonschema.Schema{Type: "boolean"},
	}
}

// spiffeID takes what SPIFFE takes (SPIFFE-ID, section 2), with a path.
func spiffeID() value {
	const form = "spiffe://, a trust domain and a path"
	return value{
		kind: "SPIFFE ID", limits: form, tag: "!!str",
		want: fmt.Sprintf("a SPIFFE ID such as %q (%s)", serverID("cluster1.com"), form),
		refuse: func(s string) (string, string) {
			if id, err := spiffeid.FromString(s); err != nil || id.Path() == "" {
				return quote(s) + " is no SPIFFE ID", ""
			}
			return "", ""
		},
		schema: jsonschema.Schema{Type: "string", Pattern: "^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$"},
	}
}

// duration takes whole seconds: SPIRE writes its hints and lives in seconds.
func duration(min, max Duration) value {
	return value{
		kind: "duration", limits: fmt.Sprintf("%s to %s", min, max), tag: "!!str",
		want: fmt.Sprintf("a duration from %s to %s, with its unit, such as %q", min, max, min),
		refuse: func(s string) (string, string) {
			d, err := time.ParseDuration(s)
			switch _, bare := strconv.ParseUint(s, 10, 64); {
			case bare == nil:
				return quote(s) + " has no unit", fmt.Sprintf("write the unit: %q for seconds", s+"s")
			case err != nil:
				return quote(s) + " is no duration", ""
			case d%time.Second != 0:
				return Duration(d).String() + " is not a whole number of seconds", ""
			case d < time.Duration(min) || d > time.Duration(max):
				return Duration(d).String() + " is out of range", ""
			}
			return "", ""
		},
		schema: jsonschema.Schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?[hms])+$`},
	}
}

// loopback takes an address and port that only this machine reaches.
func loopback() value {
	const form = "127.0.0.1 (or another 127.x.x.x) and a port from 1 to 65535"
	return value{
		kind: "address and port", limits: form, want: form + `, such as "127.0.0.1:8080"`, tag: "!!str",
		refuse: func(s string) (string, string) {
			var here string
			if port, err := strconv.ParseUint(s[strings.LastIndex(s, ":")+1:], 10, 16); err == nil && port > 0 {
				here = fmt.Sprintf("write \"127.0.0.1:%d\"", port)
			}
			at, err := netip.ParseAddrPort(s)
			switch {
			case err != nil:
				return quote(s) + " is no address and port", here
			case at.Port() == 0:
				return "port 0 is out of range", ""
			case !at.Addr().Is4():
				return at.Addr().String() + " is no IPv4 address", here
			case !at.Addr().IsLoopback():
				return at.Addr().String() + " can be reached from outside this machine", here
			case at.String() != s: // two texts for one port would pass as two ports
				return quote(s) + " is no plain address and port", "write " + quote(at.String())
			}
			return "", ""
		},
		schema: jsonschema.Schema{Type: "string", Pattern: `^127\.[0-9]+\.[0-9]+\.[0-9]+:[1-9][0-9]{0,4}$`},
	}
}

// fallbackJSON is the default as the schema and a JSON lab file have it.
func (f field) fallbackJSON() json.RawMessage {
	if f.fallback == nil {
		return nil
	}
	data, err := json.Marshal(f.fallback)
	if err != nil {
		panic(err) // the table holds strings, numbers, durations and booleans
	}
	return data
}
