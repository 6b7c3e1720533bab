package config

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReference says when docs/reference/lab-file.md is stale; -update writes it.
func TestReference(t *testing.T) {
	golden(t, filepath.Join("..", "..", "docs", "reference", "lab-file.md"), reference(t))
}

func reference(t *testing.T) []byte {
	t.Helper()
	preset, err := Init(DefaultPreset)
	if err != nil {
		t.Fatal(err)
	}
	comment := regexp.MustCompile(`(?m)^ *#.*\n`)
	var b bytes.Buffer
	fmt.Fprintf(&b, strings.ReplaceAll(`# The lab file

<!-- Made from the tables in lab/config: go test ./lab/config -update -->

A lab file says what a lab is meant to be. It is YAML or JSON, in UTF-8, one document, at most %d KiB. 'fedlab init' writes a commented one to start from, 'fedlab config validate' says what is wrong with yours, 'fedlab config defaults' writes it out with every default, and 'fedlab config schema' prints the JSON schema for your editor. The presets are '%s'. This is '%s', without its comments:

'''yaml
%s'''

Reading is strict. A field that is not in the tables below is refused, as are a field written twice, a field without a value, and a YAML alias. All problems are told at once, each with its place, its path, its cause and the right form:

'''text
lab.yaml:12:9: spec.clusters[1].name: duplicate cluster "market": give each cluster a name of its own
'''

A duration is a number with its unit, such as '90s', '5m' or '1h30m', in whole seconds; a bare number is refused. There is no field for a secret: a lab file holds none.
`, "'", "`"), maxSize>>10, strings.Join(Presets(), "` and `"), DefaultPreset, bytes.ReplaceAll(comment.ReplaceAll(preset, nil), []byte("\n\n\n"), []byte("\n\n")))
	referObject(&b, "", labObject(format.apps))
	b.WriteString("\n## Profiles, shapes and modes together\n\nThree trust domains, one of them with an `https_web` endpoint, which trust each other in three modes:\n\n```yaml\n")
	b.Write(corpus(t, "good")["modes"])
	b.WriteString("```\n")
	b.WriteString("\n## What fields have to agree on\n\n")
	for _, r := range format.apps.rules() {
		fmt.Fprintf(&b, "- %s\n", r.says)
	}
	b.WriteString("\nWhether a port of `expose` is free is asked of the machine when the lab comes up, not when the file is read.\n")
	return b.Bytes()
}

func referObject(b *bytes.Buffer, path string, o *object) {
	heading := "The file"
	if path != "" {
		heading = "`" + path + "`"
	}
	fmt.Fprintf(b, "\n## %s\n\n%s", heading, o.says)
	for _, c := range o.choices {
		var sets []string
		for _, set := range c {
			sets = append(sets, "`"+strings.Join(set, "` and `")+"`")
		}
		fmt.Fprintf(b, " Write either %s.", strings.Join(sets, ", or "))
	}
	b.WriteString("\n\n| field | type | default | range | meaning |\n|---|---|---|---|---|\n")
	for _, f := range o.fields {
		fallback := f.derived
		switch {
		case f.required:
			fallback = "required"
		case f.fallback != nil:
			fallback = fmt.Sprintf("`%v`", f.fallback)
		case fallback == "":
			fallback = "none"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", f.name, f.value.kind, fallback, f.value.limits, f.says)
	}
	for _, f := range o.fields {
		at := join(path, f.name)
		switch item := f.value.item; {
		case f.value.object != nil:
			referObject(b, at, f.value.object)
		case item != nil && item.object != nil:
			referObject(b, at+"[]", item.object)
		}
	}
}
