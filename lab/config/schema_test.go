package config

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"go.yaml.in/yaml/v3"
)

// The table of fields and the Go types name the same fields, and the same ones
// of them are required.
func TestTableAgreesWithTypes(t *testing.T) {
	types, err := jsonschema.For[Lab](&jsonschema.ForOptions{})
	if err != nil {
		t.Fatal(err)
	}
	compareSchemas(t, "lab", format.Schema(), types)
}

func compareSchemas(t *testing.T, path string, table, types *jsonschema.Schema) {
	t.Helper()
	if table.Items != nil && types.Items != nil {
		compareSchemas(t, path+"[]", table.Items, types.Items)
	}
	if !slices.Equal(sortedKeys(table.Properties), sortedKeys(types.Properties)) {
		t.Errorf("%s: the table has %v, the types have %v", path, sortedKeys(table.Properties), sortedKeys(types.Properties))
		return
	}
	if !slices.Equal(slices.Sorted(slices.Values(table.Required)), slices.Sorted(slices.Values(types.Required))) {
		t.Errorf("%s: the table requires %v, the types %v", path, table.Required, types.Required)
	}
	for name := range table.Properties {
		compareSchemas(t, path+"."+name, table.Properties[name], types.Properties[name])
	}
}

func sortedKeys(m map[string]*jsonschema.Schema) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// The defaults that the table tells are those that complete puts in.
func TestTableAgreesWithDefaults(t *testing.T) {
	compared := map[string]bool{}
	preset, err := Init(DefaultPreset)
	if err != nil {
		t.Fatal(err)
	}
	compareDefaults(t, compared, "lab", labObject(format.apps), written(t, preset, func(l Lab) any { return l }))
	// Not a default itself, but its fields have some.
	compareDefaults(t, compared, "servingCert", servingCertObject(), written(t, corpus(t, "good")["https-web"], func(l Lab) any {
		return l.Spec.TrustDomains[0].BundleEndpoint.HTTPSWeb.ServingCert
	}))
	want := []string{
		"lab.spec.federation.mode",
		"lab.spec.trustDomains.bundleEndpoint.port",
		"lab.spec.trustDomains.bundleEndpoint.profile",
		"lab.spec.trustDomains.bundleEndpoint.refreshHint",
		"lab.spec.trustDomains.ca.keyType",
		"lab.spec.trustDomains.ca.subject.country",
		"lab.spec.trustDomains.ca.subject.organization",
		"lab.spec.trustDomains.ca.ttl",
		"lab.spec.trustDomains.datastore",
		"lab.spec.trustDomains.logLevel",
		"lab.spec.trustDomains.serverReplicas",
		"lab.spec.trustDomains.upstreamAuthority",
		"servingCert.fileSyncInterval",
		"servingCert.shortIntervals",
	}
	var got []string
	for path := range compared {
		got = append(got, path)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("compared the defaults of %v, want %v", got, want)
	}
}

// written returns a part of a lab file with all defaults, as JSON decodes it.
func written(t *testing.T, file []byte, part func(Lab) any) any {
	t.Helper()
	f, err := format.Read(file, "lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(part(f.Lab))
	if err != nil {
		t.Fatal(err)
	}
	var decoded any
	if err := json.Unmarshal(data, &decoded); err != nil {
		t.Fatal(err)
	}
	return decoded
}

func compareDefaults(t *testing.T, compared map[string]bool, path string, o *object, lab any) {
	t.Helper()
	for _, f := range o.fields {
		at, got := path+"."+f.name, lab.(map[string]any)[f.name]
		if got == nil && f.fallback == nil {
			continue // it stays missing
		}
		if f.fallback != nil {
			compared[at] = true
			if value, err := json.Marshal(got); err != nil || string(value) != string(f.fallbackJSON()) {
				t.Errorf("%s: complete writes %s (%v), the table says %s", at, value, err, f.fallbackJSON())
			}
		}
		switch item := f.value.item; {
		case f.value.object != nil:
			compareDefaults(t, compared, at, f.value.object, got)
		case item != nil && item.object != nil:
			for _, entry := range got.([]any) {
				compareDefaults(t, compared, at, item.object, entry)
			}
		}
	}
}

// check returns a function that holds a lab file against the schema.
func check(t *testing.T) func(data []byte) error {
	t.Helper()
	// Through JSON, as an editor gets it.
	data, err := json.Marshal(format.Schema())
	if err != nil {
		t.Fatal(err)
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	resolved, err := schema.Resolve(&jsonschema.ResolveOptions{ValidateDefaults: true})
	if err != nil {
		t.Fatal(err)
	}
	return func(data []byte) error {
		var lab any
		if err := yaml.Unmarshal(data, &lab); err != nil {
			return err
		}
		return resolved.Validate(lab)
	}
}

func TestSchemaTakesGoodFiles(t *testing.T) {
	check := check(t)
	files := corpus(t, "good")
	for _, name := range Presets() {
		data, err := Init(name)
		if err != nil {
			t.Fatal(err)
		}
		files["preset "+name] = data
	}
	for name, data := range files {
		if err := check(data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f, err := format.Read(data, name)
		if err != nil {
			t.Fatal(err)
		}
		complete, err := Marshal(f.Lab)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(complete); err != nil {
			t.Errorf("%s, complete: %v", name, err)
		}
	}
}

// The schema refuses what is wrong within one field, so that an editor shows it.
func TestSchemaRefusesBadFiles(t *testing.T) {
	check := check(t)
	files := corpus(t, "bad")
	for _, name := range []string{
		"header-missing", "api-version-unknown", "kind-of-kind", "metadata-null", "metadata-extra-field",
		"lab-name-number", "lab-name-capitals", "lab-name-too-long", "spec-missing", "spec-list",
		"clusters-none", "clusters-missing", "clusters-object", "clusters-text", "clusters-too-many", "cluster-empty",
		"cluster-unknown-field", "cluster-field-of-another", "trust-domain-capitals", "trust-domain-scheme",
		"trust-domain-too-long", "profile-unknown", "profile-acme", "own-cert-secret-name", "endpoint-host-one-label", "serving-cert-misplaced",
		"file-sync-seconds", "short-intervals-word",
		"datastore-unknown", "upstream-unknown", "endpoint-port-zero", "endpoint-port-too-high",
		"endpoint-port-quoted", "refresh-hint-bare-number", "refresh-hint-quoted-number", "refresh-hint-word",
		"ca-ttl-days", "ca-key-type-unknown", "ca-key-type-capitals", "ca-key-type-number", "ca-key-type-list", "ca-key-type-object",
		"ca-key-type-null", "ca-key-type-size-apart", "ca-key-type-misplaced", "ca-jwt-key-type-algorithm", "ca-jwt-key-type-as-in-spire",
		"ca-subject-country", "ca-subject-unit", "ca-subject-line-break", "jwt-issuer-http",
		"log-level-unknown", "federation-text", "federation-between-one", "federation-from-only", "federation-neither",
		"federation-between-and-from", "shape-unknown", "shape-of-one", "shape-and-between", "mode-unknown", "endpoint-id-empty", "endpoint-id-url",
		"calls-text", "workload-unknown-app", "workload-without-app", "expose-everywhere", "expose-port-only", "secret",
	} {
		data, ok := files[name]
		if !ok {
			t.Errorf("there is no testdata/bad/%s.yaml", name)
			continue
		}
		if err := check(data); err == nil {
			t.Errorf("the schema takes testdata/bad/%s.yaml", name)
		}
	}
}

// Every object of the schema refuses fields that it does not name.
func TestSchemaIsClosed(t *testing.T) {
	var closed func(path string, s *jsonschema.Schema)
	objects := 0
	closed = func(path string, s *jsonschema.Schema) {
		if s == nil {
			return
		}
		if s.Properties != nil {
			objects++
			if a := s.AdditionalProperties; a == nil || a.Not == nil {
				t.Errorf("%s takes any field", path)
			}
		}
		for name, p := range s.Properties {
			if p.Description == "" || !strings.HasSuffix(p.Description, ".") {
				t.Errorf("%s.%s: description %q is no sentence", path, name, p.Description)
			}
			closed(path+"."+name, p)
		}
		closed(path+"[]", s.Items)
	}
	closed("lab", format.Schema())
	if want := 26; objects != want {
		t.Errorf("the schema has %d objects, want %d", objects, want)
	}
}
