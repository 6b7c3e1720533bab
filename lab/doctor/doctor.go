// Package doctor tells what is wrong with a lab: of all that a look has found, which is
// the cause, and which follows from it.
//
// It is pure: it is handed what was found, and a table of what needs what. It refuses to
// know how anybody looks.
package doctor

import (
	"cmp"
	"slices"
)

// ID names a diagnosis. It stays the same from one version to the next.
type ID string

// Kind is a kind of part of a lab.
type Kind string

// Part is a part of a lab that can be unwell.
type Part struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
}

// String reads "held bundle cluster2.com->cluster1.com".
func (p Part) String() string { return string(p.Kind) + " " + p.Name }

// Finding is one thing that was seen, and that is not as it should be.
type Finding struct {
	ID   ID   `json:"id"`
	Part Part `json:"part"`
	// Seen is in the words of whoever has looked.
	Seen string `json:"seen"`
}

// Found returns a finding at the part of a name. The kind is that of the diagnosis.
func Found(id ID, name, seen string) Finding { return Finding{id, Part{EntryOf(id).Kind, name}, seen} }

// Look is what was found in a lab.
type Look struct {
	Findings []Finding
	// Needs says of each part what it needs directly. It has no circle.
	Needs map[Part][]Part
}

// Diagnosis is a cause, with what follows from it.
type Diagnosis struct {
	Finding
	// Cause is what it means, and Cure what to do.
	Cause string `json:"cause"`
	Cure  string `json:"cure"`
	// Note is set where a person has to know of it, and the lab is well all the same.
	Note bool `json:"note,omitempty"`
	// Follows are findings that this one explains. The nearest come first.
	Follows []Finding `json:"follows,omitempty"`
}

// Diagnose returns the causes, in the order in which to look at them: what comes first in
// the catalogue comes first, and notes come last.
func Diagnose(l Look) []Diagnosis {
	d := diagnosing{needs: l.Needs, at: map[Part][]Finding{}, entries: map[ID]Entry{}, rank: map[ID]int{}}
	for i, e := range Catalogue() {
		d.entries[e.ID], d.rank[e.ID] = e, i
	}
	var found []Finding
	for _, f := range l.Findings {
		if !slices.ContainsFunc(d.at[f.Part], func(g Finding) bool { return g.ID == f.ID }) {
			d.at[f.Part], found = append(d.at[f.Part], f), append(found, f)
		}
	}
	slices.SortStableFunc(found, d.order)
	var all []Diagnosis
	for _, f := range found {
		if e := d.entries[f.ID]; !d.explained(f) {
			all = append(all, Diagnosis{Finding: f, Cause: e.Cause, Cure: e.Cure, Note: e.Note})
		}
	}
	type following struct {
		Finding
		far int
	}
	follows := make([][]following, len(all))
	for _, f := range found {
		if cause, far := d.nearest(f, func(g Finding) bool { return !d.explained(g) }); cause != nil {
			i := slices.IndexFunc(all, func(one Diagnosis) bool { return one.Finding == *cause })
			follows[i] = append(follows[i], following{f, far})
		}
	}
	for i, some := range follows {
		slices.SortStableFunc(some, func(a, b following) int { return cmp.Compare(a.far, b.far) })
		for _, f := range some {
			all[i].Follows = append(all[i].Follows, f.Finding)
		}
	}
	return all
}

// diagnosing is a look that is being sorted out.
type diagnosing struct {
	needs   map[Part][]Part
	at      map[Part][]Finding
	entries map[ID]Entry
	// rank is the place in the catalogue, in which notes come last.
	rank map[ID]int
}

// order is that of the catalogue, and by name where a diagnosis is there several times.
func (d diagnosing) order(a, b Finding) int {
	return cmp.Or(cmp.Compare(d.rank[a.ID], d.rank[b.ID]), cmp.Compare(a.Part.Name, b.Part.Name))
}

func (d diagnosing) explained(f Finding) bool {
	cause, _ := d.nearest(f, func(Finding) bool { return true })
	return cause != nil
}

// nearest returns the finding that explains another one by the fewest steps, and how many
// these are: at the same part one that is earlier in the catalogue, else one at a part that
// it needs. It is nil where nothing does.
func (d diagnosing) nearest(f Finding, is func(Finding) bool) (cause *Finding, far int) {
	if d.entries[f.ID].Alone {
		return nil, 0
	}
	seen, level := map[Part]bool{f.Part: true}, []Part{f.Part}
	for ; len(level) > 0; far++ {
		var candidates []Finding
		var next []Part
		for _, part := range level {
			for _, g := range d.at[part] {
				if (far > 0 || d.rank[g.ID] < d.rank[f.ID]) && !d.entries[g.ID].Note && is(g) {
					candidates = append(candidates, g)
				}
			}
			for _, needed := range d.needs[part] {
				if !seen[needed] {
					seen[needed], next = true, append(next, needed)
				}
			}
		}
		if len(candidates) > 0 {
			first := slices.MinFunc(candidates, d.order)
			return &first, far
		}
		level = next
	}
	return nil, 0
}
