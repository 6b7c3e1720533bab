package troubles_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/troubles"
)

const document = "# When it does not work\n\nFirst, always: look.\n\n" +
	"## A lab\n\n### `lab … is not up: …`\n\nStart it.\n\nThen look.\n\n<!-- END made by a test -->\n\n### It takes very long\n\nWait for the images.\n\n" +
	"## Drift\n\nIt compares.\n\n| state | what to do |\n|---|---|\n| `in sync` | nothing |\n| `behind`, `foreign` | wait |\n\nA poll comes.\n\n" +
	"### `entry without federatesWith: …`\n\nPut it back.\n\n### `the entry of … does not federate with …`\n\nThe third fact.\n"

func TestRead(t *testing.T) {
	want := []troubles.Entry{
		{Section: "A lab", Title: "lab … is not up: …", Message: true, Text: "Start it.\n\nThen look."},
		{Section: "A lab", Title: "It takes very long", Text: "Wait for the images."},
		{Section: "Drift", Title: "Drift", Text: "It compares.\n\n\nA poll comes."},
		{Section: "Drift", Title: "in sync", Message: true, Text: "nothing"},
		{Section: "Drift", Title: "behind, foreign", Message: true, Text: "wait"},
		{Section: "Drift", Title: "entry without federatesWith: …", Message: true, Text: "Put it back."},
		{Section: "Drift", Title: "the entry of … does not federate with …", Message: true, Text: "The third fact."},
	}
	if got := troubles.Read(document); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if got := troubles.Read("no heading\n"); got != nil {
		t.Errorf("a text without sections has entries: %+v", got)
	}
}

func TestFind(t *testing.T) {
	for words, want := range map[string][]string{
		"fedlab: lab quotes is not up: it has no network": {"lab … is not up: …"},
		// A message that has two of them: the one with more letters first.
		"entry without federatesWith: the entry of spiffe://a does not federate with b": {"the entry of … does not federate with …", "entry without federatesWith: …"},
		"foreign":               {"behind, foreign"},
		"FEDERATESWITH":         {"entry without federatesWith: …"},
		"federate":              {"entry without federatesWith: …", "the entry of … does not federate with …"},
		"long":                  {"It takes very long"},
		"third fact":            {"the entry of … does not federate with …"},
		"poll":                  {"Drift"},
		"very long takes hours": {"It takes very long"},
		"nonsense":              nil,
		"of the":                nil,
		"":                      nil,
	} {
		var got []string
		for _, e := range troubles.Find(troubles.Read(document), words) {
			got = append(got, e.Title)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q finds %q, want %q", words, got, want)
		}
	}
}
