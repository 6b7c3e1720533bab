package live

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/look"
	"github.com/fedlab-dev/fedlab/lab/watch"
)

// place is one of those that an authority comes through.
type place int

// The places are in the order in which a new authority comes through them.
const (
	source   place = iota // the server of its trust domain
	endpoint              // what the bundle endpoint of that server serves
	held                  // what another server holds of the trust domain
	agents                // SVIDs of agents that it has signed
	workloads
	allPlaces
)

// key is an authority of a trust domain.
type key struct{ domain, id string }

// spot is a place of an authority. By is the server that holds it; empty elsewhere.
type spot struct {
	key
	place place
	by    string
}

// stay is when an authority has been at a spot: since and left are zero where that was not seen.
type stay struct {
	since, left time.Time
	// count is how many SVIDs it has signed, at the places of SVIDs.
	count int
	there bool
}

// keys remember when each authority was first seen in each of its places. An authority that is
// nowhere any more is forgotten.
type keys struct {
	stays map[spot]stay
	known map[key]federation.Authority
	looks look.Authorities
}

// see takes a look in, and returns what has moved since the one before, in words.
func (k *keys) see(l watch.Look) (moved []string) {
	first := k.stays == nil
	if first {
		k.stays, k.known = map[spot]stay{}, map[key]federation.Authority{}
	}
	now := k.spots(l)
	for s, count := range now {
		was, known := k.stays[s]
		is := stay{since: was.since, count: count, there: true}
		if !known && !first || known && !was.there {
			is.since = l.At
			moved = append(moved, s.String())
		}
		k.stays[s] = is
	}
	alive := map[key]bool{}
	for s := range now {
		alive[s.key] = true
	}
	for s, was := range k.stays {
		switch _, there := now[s]; {
		case !alive[s.key]:
			delete(k.stays, s)
			delete(k.known, s.key)
		case !there && was.there:
			k.stays[s] = stay{since: was.since, left: l.At}
		}
	}
	slices.Sort(moved)
	return moved
}

// spots are where authorities are in a look, with the number of SVIDs that they have signed.
func (k *keys) spots(l watch.Look) map[spot]int {
	all := map[spot]int{}
	note := func(domain string, at place, by string, list []federation.Authority) {
		for _, a := range list {
			of := key{domain, a.ID}
			k.known[of] = a
			all[spot{of, at, by}]++
		}
	}
	for _, d := range l.Domains {
		if d.Name == trustDomain(d.Name) {
			note(d.Name, source, "", d.Own)
			note(d.Name, endpoint, "", d.Served)
		}
	}
	for _, p := range l.Pairs {
		note(p.Trusted, held, p.Truster, p.Held)
	}
	for _, i := range l.Identities {
		of := key{i.TrustDomain, i.Authority}
		if _, known := k.known[of]; !known {
			continue
		}
		switch i.What {
		case watch.Agent:
			all[spot{of, agents, ""}]++
		case watch.Workload:
			all[spot{of, workloads, ""}]++
		}
	}
	return all
}

// String says that an authority has come to a spot.
func (s spot) String() string {
	where := map[place]string{
		source:    "1. it is in the bundle of its own server",
		endpoint:  "2. its bundle endpoint serves it",
		held:      "3. " + s.by + " holds it",
		agents:    "4. an agent has an SVID that it signed",
		workloads: "5. a workload has an SVID that it signed",
	}[s.place]
	return fmt.Sprintf("authority %.8s of %s: %s", s.id, s.domain, where)
}

// lanes are the authorities of one trust domain, and where they are on their way to another.
type lanes struct {
	Truster, Trusted string
	Lanes            []lane
	// Untold says that there are agents that do not tell who has signed their SVIDs.
	Untold bool
}

// lane is one authority in all its places.
type lane struct {
	federation.Authority
	Look  look.Look
	Stops []stop
}

// stop is an authority in a place.
type stop struct {
	// There is set while it is there, and Left when it was.
	There, Left bool
	Text        string
}

func (k *keys) lanes(l watch.Look, truster, trusted string) lanes {
	all := lanes{Truster: truster, Trusted: trusted}
	all.Untold = slices.ContainsFunc(l.Identities, func(i watch.Identity) bool {
		return i.What == watch.Agent && i.TrustDomain == trusted && i.Authority == ""
	})
	for of := range maps.Keys(k.known) {
		if of.domain == trusted {
			all.Lanes = append(all.Lanes, k.lane(of, truster))
		}
	}
	slices.SortFunc(all.Lanes, func(a, b lane) int {
		return cmp.Or(strings.Compare(string(b.Kind), string(a.Kind)), a.NotBefore.Compare(b.NotBefore), strings.Compare(a.ID, b.ID)) // X.509, then JWT
	})
	// The looks are given in the order in which they are shown.
	for i := range all.Lanes {
		all.Lanes[i].Look = k.looks.Look(trusted + " " + all.Lanes[i].ID)
	}
	return all
}

func (k *keys) lane(of key, truster string) lane {
	l := lane{Authority: k.known[of]}
	began := k.stays[spot{of, source, ""}].since
	for at := range allPlaces {
		by := ""
		if at == held {
			by = truster
		}
		l.Stops = append(l.Stops, k.stays[spot{of, at, by}].stop(at, began))
	}
	return l
}

// stop says of a stay when it began: the time at the source, and in the other places how much
// later that was.
func (s stay) stop(at place, began time.Time) stop {
	is := stop{There: s.there, Left: !s.left.IsZero()}
	var words []string
	if is.There && at >= agents {
		words = append(words, fmt.Sprintf("%d SVIDs", s.count))
		if s.count == 1 {
			words[0] = "1 SVID"
		}
	}
	switch {
	case is.Left:
		words = append(words, "left at "+clock(s.left))
	case s.since.IsZero():
	case at == source || began.IsZero():
		words = append(words, "since "+clock(s.since))
	default:
		words = append(words, fmt.Sprintf("after %.0f s", s.since.Sub(began).Seconds()))
	}
	is.Text = strings.Join(words, ", ")
	return is
}
