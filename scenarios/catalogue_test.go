package scenarios

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestCatalogue(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Catalogue() {
		group, what, ok := strings.Cut(s.Name, "/")
		switch {
		case !ok || group == "" || what == "" || strings.Contains(what, "/"):
			t.Errorf("scenario %q: want a name of the form group/what", s.Name)
		case seen[s.Name]:
			t.Errorf("two scenarios are called %s", s.Name)
		case !strings.HasSuffix(s.Claim, ".") || strings.Contains(strings.TrimSuffix(s.Claim, "."), ". "):
			t.Errorf("the claim of %s is not one sentence: %q", s.Name, s.Claim)
		case s.Run == nil:
			t.Errorf("%s does nothing", s.Name)
		}
		for _, l := range s.Labels {
			if l != Slow && l != CI {
				t.Errorf("%s has the label %q, of which nobody knows what it means", s.Name, l)
			}
		}
		seen[s.Name] = true
	}
	for _, group := range []string{"rotation", "outage", "drift", "auth"} {
		some, err := Labelled(group)
		if err != nil || len(some) < 4 {
			t.Errorf("group %s has %d scenarios, %v", group, len(some), err)
		}
	}
}

// TestEachClaimHasParts: the words of a claim that verdicts carry are its own. That a run comes
// to these verdicts, and to no other, the engine asks of each run.
func TestEachClaimHasParts(t *testing.T) {
	for _, s := range Catalogue() {
		carried := 0
		for _, p := range s.Parts {
			if !strings.Contains(s.Claim, p.Words) {
				t.Errorf("%s does not claim %q", s.Name, p.Words)
			}
			if len(p.By) == 0 || slices.Contains(p.By, "") {
				t.Errorf("%s: %q is carried by %q", s.Name, p.Words, p.By)
			}
			if p.Words != "" {
				carried++
			}
		}
		if carried == 0 {
			t.Errorf("nobody says which verdicts carry the claim of %s", s.Name)
		}
	}
}

func TestFindTellsWhatThereIs(t *testing.T) {
	_, err := Find("rotation/none")
	unknown := (*UnknownError)(nil)
	if !errors.As(err, &unknown) || err.Error() != `there is no scenario "rotation/none"` || len(unknown.Known) != len(Catalogue()) {
		t.Errorf("error is %v", err)
	}
	_, err = Labelled("quick")
	if !errors.As(err, &unknown) || err.Error() != `there is no label "quick"` || !slices.Contains(unknown.Known, "drift") {
		t.Errorf("error is %v, of %v", err, unknown.Known)
	}
}

func TestShuffledBySeed(t *testing.T) {
	names := func(seed uint64) string {
		var list []string
		for _, s := range Shuffled(Catalogue(), seed) {
			list = append(list, s.Name)
		}
		return strings.Join(list, " ")
	}
	one := names(7)
	if again := names(7); again != one {
		t.Errorf("one seed makes two orders: %s, and %s", one, again)
	}
	if names(8) == one {
		t.Error("two seeds make one order")
	}
}
