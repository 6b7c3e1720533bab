package doctor

import (
	"slices"
	"time"
)

// Report is what doctor says of a lab.
type Report struct {
	Lab string `json:"lab"`
	// Well is true when there is nothing but notes.
	Well bool      `json:"well"`
	At   time.Time `json:"at"`
	// TookSeconds is how long it took to look.
	TookSeconds float64 `json:"tookSeconds"`
	// Calls were made for this report; none where nobody asked for any.
	Calls []Called `json:"calls,omitempty"`
	// Diagnoses has the causes, the first one first.
	Diagnoses []Diagnosis `json:"diagnoses"`

	needs map[Part][]Part
}

// Called is one call of a workload to another, and one that must be refused.
type Called struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Outcome is one of package traffic.
	Outcome string `json:"outcome"`
	// Server is the SPIFFE ID that answered; empty where the caller came to none.
	Server string `json:"server,omitempty"`
	Detail string `json:"detail,omitempty"`
	// Stranger is the outcome of a call from the same place with an SVID that nobody has
	// signed.
	Stranger string `json:"stranger"`
}

// Conclude makes a report of a look.
func Conclude(lab string, l Look, calls []Called, at time.Time, took time.Duration) Report {
	r := Report{Lab: lab, At: at, TookSeconds: took.Seconds(), Calls: calls, Diagnoses: Diagnose(l), needs: l.Needs}
	if r.Diagnoses == nil {
		r.Diagnoses = []Diagnosis{}
	}
	r.Well = !slices.ContainsFunc(r.Diagnoses, func(d Diagnosis) bool { return !d.Note })
	return r
}

// Of returns the diagnoses that are, or have among what follows from them, one of these.
func (r Report) Of(ids []ID) (some []Diagnosis) {
	for _, d := range r.Diagnoses {
		if slices.Contains(ids, d.ID) || slices.ContainsFunc(d.Follows, func(f Finding) bool { return slices.Contains(ids, f.ID) }) {
			some = append(some, d)
		}
	}
	return some
}

// Behind returns the diagnoses of parts, and of what these need.
func (r Report) Behind(parts ...Part) (some []Diagnosis) {
	needed := map[Part]bool{}
	for len(parts) > 0 {
		part := parts[0]
		if parts = parts[1:]; !needed[part] {
			needed[part], parts = true, append(parts, r.needs[part]...)
		}
	}
	for _, d := range r.Diagnoses {
		if needed[d.Part] {
			some = append(some, d)
		}
	}
	return some
}
