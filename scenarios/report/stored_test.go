package report

import (
	"math/rand/v2"
	"time"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// The records that the tests render, as runs leave them, except for their times.
const (
	market = "cluster1.com"
	broker = "cluster2.com"

	oldX509 = "3f9a01bc77d2e4560818a0c3b5d19e7f2a6c4410"
	newX509 = "c41d80e2905b6af3117c2ed98b40a6735f0e8d22"
	oldJWT  = "Yt7vX0p3kTnqE5aGmB2cWl9sRzHdJuQ4"
	newJWT  = "b8LqMz6wDn1fKc0yVgA5hRtXeP7sJ3Ui"
)

var noon = time.Date(2026, time.March, 14, 12, 0, 0, 0, time.UTC)

// after is a time of a record.
func after(s float64) time.Time { return noon.Add(span(s)) }

func span(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// record is one without anything in it, that took so many seconds.
func record(name, claim string, took float64) trial.Record {
	return trial.Record{
		APIVersion: trial.RecordVersion, Kind: "ScenarioRecord", Scenario: name, Claim: claim, Lab: "quotes",
		On:     trial.On{Truster: broker, Trusted: market, Profile: "https_spiffe", Mode: "crd"},
		Labels: []string{"ci"}, Began: noon, Ended: after(took),
		Steps: []trial.Step{}, Windows: []trial.Window{}, Marks: []trial.Mark{}, Measures: []trial.Measure{},
		Holdings: []trial.Holding{}, Streams: []traffic.Stream{}, Verdicts: []trial.Verdict{},
	}
}

// stream makes a call every 200 ms, from one time to another; each ends as told.
func stream(from, until float64, connection traffic.Connection, end func(at float64, c *traffic.Call)) traffic.Stream {
	s := traffic.Stream{
		Order: traffic.Order{
			Name: "quotes", Address: "10.192.1.20:8443", Server: "spiffe://" + market + "/ns/fedlab/sa/probe",
			Every: 200 * time.Millisecond, Within: 2 * time.Second, Connection: connection,
		},
		From: broker, Began: after(from), Ended: after(until),
	}
	random := rand.New(rand.NewPCG(1, 2))
	for at := from; at < until; at += .2 {
		c := traffic.Call{Number: len(s.Calls) + 1, At: after(at), Took: span(.004 + .01*random.Float64()), Outcome: traffic.Answered}
		c.Client = &traffic.Party{ID: "spiffe://" + broker + "/ns/fedlab/sa/probe", Serial: "5d1e", NotAfter: after(3600), Authority: "77aa01"}
		c.Server = &traffic.Party{ID: s.Order.Server, Serial: "2b7c", NotAfter: after(3600), Authority: oldX509}
		end(at, &c)
		if c.Outcome != traffic.Answered {
			c.Server, c.Client = nil, nil
		}
		s.Calls = append(s.Calls, c)
	}
	return s
}

// looks are what both servers have of market, every two seconds.
func looks(until float64, own, held func(at float64) (x509, jwt []string, state federation.State)) []trial.Holding {
	var all []trial.Holding
	for at := 1.0; at < until; at += 2 {
		x509, jwt, _ := own(at)
		all = append(all, trial.Holding{At: after(at), Holder: market, Of: market, X509: x509, JWT: jwt})
		x509, jwt, state := held(at)
		all = append(all, trial.Holding{At: after(at + .1), Holder: broker, Of: market, State: state, X509: x509, JWT: jwt})
	}
	return all
}

func step(name, look string, began, took float64, seen ...string) trial.Step {
	return trial.Step{Name: name, Look: look, Began: after(began), Took: span(took), Seen: seen}
}

func rotation() trial.Record {
	r := record("rotation/x509-authority",
		"Replacing an X.509 authority never breaks a call from a federated peer, and afterwards the peer no longer trusts the old authority.", 121)
	r.Sources = []string{
		"https://github.com/spiffe/spire/blob/v1.15.3/doc/spire_server.md (localauthority x509)",
		"SPIRE pkg/common/bundleutil/marshal.go: the served bundle does not say which authority is tainted",
	}
	r.Steps = []trial.Step{
		step("call across the federation", "the demo's page goes on showing answers throughout", .2, 3.1, "the first call is answered after 0.4 s"),
		step("publish the next authority before anything is signed with it", "'fedlab status' counts one more X.509 authority", 3.4, 17.2,
			"cluster1.com prepares c41d80e2", "the probe of cluster2.com has c41d80e2 of cluster1.com: after 16.8 s, bound 20.2 s"),
		step("sign with it", "", 20.7, 1.2, "cluster1.com activates c41d80e2"),
		step("taint the old one, and wait until nothing presents an SVID of it", "the demo's page shows another authority", 22, 33.6,
			"workloads of cluster1.com present SVIDs of c41d80e2, and so does its bundle endpoint: after 12.4 s, bound 4.4 s"),
		step("revoke the old one, and wait until the peer has dropped it", "", 56, 61.5,
			"cluster2.com has dropped 3f9a01bc of cluster1.com: after 17.3 s, bound 16.0 s", "calls go on for 40.0 s (two polls and more)"),
	}
	removed := step("remove the probes", "", 118.2, 2.1)
	removed.Restore = true
	r.Steps = append(r.Steps, removed)
	r.Marks = []trial.Mark{
		{At: after(3.6), What: "cluster1.com prepares c41d80e2"},
		{At: after(20.8), What: "cluster1.com activates c41d80e2"},
		{At: after(22.1), What: "cluster1.com taints 3f9a01bc"},
		{At: after(56.1), What: "cluster1.com revokes 3f9a01bc"},
	}
	r.Measures = []trial.Measure{
		{What: "the probe of cluster2.com has c41d80e2 of cluster1.com", At: after(3.6), Took: span(16.8), Bound: span(20.2), Slack: span(1.5),
			Formula: "endpoint cache + one poll (15s) + entry cache + agent synchronisation", Propagation: true, Result: trial.Holds},
		{What: "workloads of cluster1.com present SVIDs of c41d80e2", At: after(22.1), Took: span(4.1), Bound: span(4.4), Slack: span(1.5),
			Formula: "two agent synchronisations", Result: trial.Holds},
		{What: "cluster2.com has dropped 3f9a01bc of cluster1.com", At: after(56.1), Took: span(17.3), Bound: span(16), Slack: span(1.5),
			Formula: "endpoint cache + one poll (15s)", Result: trial.Late},
	}
	r.Holdings = looks(120,
		func(at float64) (x509, jwt []string, _ federation.State) {
			x509 = []string{oldX509}
			if at > 3.6 {
				x509 = append(x509, newX509)
			}
			if at > 56.1 {
				x509 = x509[1:]
			}
			return x509, []string{oldJWT}, ""
		},
		func(at float64) (x509, jwt []string, state federation.State) {
			x509, state = []string{oldX509}, federation.InSync
			switch {
			case at > 73.4:
				x509 = []string{newX509}
			case at > 15.2:
				x509 = append(x509, newX509)
				if at > 56.1 {
					state = federation.Differing
				}
			case at > 3.6:
				state = federation.Behind
			}
			return x509, []string{oldJWT}, state
		})
	r.Streams = []traffic.Stream{stream(.4, 120.3, traffic.Fresh, func(at float64, c *traffic.Call) {
		if at > 31.2 {
			c.Server.Authority = newX509
		}
	})}
	r.Verdicts = []trial.Verdict{
		{Verdict: traffic.Verdict{Says: "every call is answered, from the first to the last", Rule: traffic.AllAnswered, Stream: "quotes", From: after(.4)}, Result: trial.Holds},
		{Verdict: traffic.Verdict{Says: "two agent synchronisations after the taint, each server shows an SVID of c41d80e2", Rule: traffic.AuthorityBy, Stream: "quotes",
			From: after(22.1), Within: span(4.4), Slack: span(1.5), Authority: newX509}, Result: trial.Holds},
	}
	const trusts = "X.509 authority 3f9a01bc of cluster1.com at workloads of cluster2.com"
	for _, l := range []struct {
		at   float64
		seen string
	}{{.3, trial.There}, {56, trial.There}, {74, trial.Absent}, {74.5, trial.Absent}, {75, trial.Absent}} {
		r.Looks = append(r.Looks, trial.Look{Of: trusts, At: after(l.at), Took: span(.1), Seen: l.seen})
	}
	r.Looks[1].Seen, r.Looks[1].Error = "", "read what the probe holds: timed out"
	r.Verdicts = append(r.Verdicts, trial.Verdict{
		Verdict: traffic.Verdict{Says: "the peer trusts the revoked one no longer", Rule: trial.Looked, Stream: trusts, From: after(74), Until: after(75), Slack: span(1.5)},
		Want:    []string{trial.Absent}, Well: trial.There, Result: trial.Holds,
	})
	r.Slack = trial.Slack{Timer: span(.4), Call: span(1.1)}
	r.Result = trial.Late
	return r
}

// failed is a rotation that a mutation made fail.
func failed() trial.Record {
	r := record("rotation/faster-than-refresh", "A rotation that does not wait for the peer's poll refuses its calls until that poll, and not longer.", 82)
	r.Mutation = "never-refresh"
	r.Steps = []trial.Step{
		step("call across the federation", "", .2, 2.4, "the first call is answered after 0.4 s"),
		step("prepare, activate and taint at once", "'fedlab status' names the cause", 3, 2.2, "cluster1.com activates c41d80e2"),
		step("wait until the peer has fetched", "", 5.4, 65.2),
	}
	r.Steps[2].Error = "the probe of cluster2.com has c41d80e2 of cluster1.com: not after 1m5.2s and 244 tries: they have [3f9a01bc]"
	undone := step("undo: the truster fetches never", "", 71, 9.5)
	undone.Restore = true
	r.Steps = append(r.Steps, undone)
	r.Error = r.Steps[2].Name + ": " + r.Steps[2].Error
	r.Marks = []trial.Mark{
		{At: after(3.1), What: "cluster1.com prepares c41d80e2"},
		{At: after(3.9), What: "cluster1.com activates c41d80e2"},
		{At: after(4.6), What: "cluster1.com taints 3f9a01bc"},
		{At: after(80.2), What: "cluster2.com has fetched"},
		{At: after(81), What: "the run is over"},
	}
	r.Measures = []trial.Measure{{What: "the probe of cluster2.com has c41d80e2 of cluster1.com", At: after(5.4), Took: span(65.2),
		Bound: span(20.2), Slack: span(.3), Formula: "endpoint cache + one poll (15s) + entry cache + agent synchronisation", Propagation: true, Result: trial.DoesNotHold}}
	r.Slack, r.Result = trial.Slack{Timer: span(.3)}, trial.DoesNotHold
	r.Holdings = looks(82,
		func(at float64) (x509, jwt []string, _ federation.State) {
			if at > 3.1 {
				return []string{oldX509, newX509}, []string{oldJWT, newJWT}, ""
			}
			return []string{oldX509}, []string{oldJWT}, ""
		},
		func(at float64) (x509, jwt []string, state federation.State) {
			switch {
			case at > 80:
				return []string{oldX509, newX509}, []string{oldJWT, newJWT}, federation.InSync
			case at > 3.1:
				return []string{oldX509}, []string{oldJWT}, federation.Behind
			}
			return []string{oldX509}, []string{oldJWT}, federation.InSync
		})
	r.Streams = []traffic.Stream{stream(.4, 81.5, traffic.Fresh, func(at float64, c *traffic.Call) {
		if at > 7.8 && at < 80.3 {
			c.Outcome, c.Detail = traffic.UnknownAuthority, "x509: certificate signed by unknown authority"
		}
		if at >= 80.3 {
			c.Server.Authority = newX509
		}
	})}
	r.Verdicts = []trial.Verdict{
		{Verdict: traffic.Verdict{Says: "calls are refused for no longer than one poll", Rule: traffic.AnsweredBy, Stream: "quotes", From: after(3.9), Within: span(65.2)},
			Result: trial.DoesNotHold, Why: "call 347 at 69.6 s is the first of 54 that were not answered: unknown-authority"},
		{Verdict: traffic.Verdict{Says: "calls before the rotation are answered", Rule: traffic.AllAnswered, Stream: "quotes", From: after(.4), Until: after(3.9)}, Result: trial.Holds},
	}
	return r
}

// partition has two faults, one within the other's time, and calls on three kinds
// of connections.
func partition() trial.Record {
	r := record("outage/partition", "A partition between clusters fails the calls that need it and no others, and SPIRE repairs itself when it is over.", 95)
	r.Windows = []trial.Window{
		{Name: "no packet passes between market and broker", Injected: after(20), Felt: after(20.7), Recovered: after(52), Healed: after(58.4)},
		{Name: "the server of cluster2.com is down", Injected: after(44), Felt: after(46.2)},
	}
	r.Steps = []trial.Step{
		step("call across the federation", "", .2, 2.1, "the first call is answered after 0.3 s"),
		step("cut the network between the clusters", "", 19.8, 1.1, "no packet passes between market and broker: it is felt"),
		step("stop the caller's server, too", "", 43.9, 2.5, "the server of cluster2.com is down: it is felt"),
		step("repair the network", "", 51.9, 6.6, "no packet passes between market and broker: healed after 6.4 s"),
	}
	r.Marks = []trial.Mark{{At: after(20.7), What: "the first call fails"}, {At: after(58.4), What: "calls are answered again"}}
	cut := func(at float64, c *traffic.Call) {
		switch {
		case at > 20.4 && at < 53:
			c.Outcome, c.Detail = traffic.NoAnswer, "context deadline exceeded"
		case at > 53 && at < 57.9:
			c.Outcome, c.Detail = traffic.Unreachable, "dial tcp 10.192.1.20:8443: connect: connection refused"
		case at > 88 && at < 88.3:
			c.Outcome, c.Detail = traffic.ServerFailed, "status 503"
		}
	}
	inside := stream(.4, 94, traffic.Kept, func(float64, *traffic.Call) {})
	inside.From, inside.Order.Name, inside.Order.Server = market, "inside", "spiffe://"+market+"/ns/fedlab/sa/probe"
	dense := stream(.4, 94, traffic.Resumed, cut)
	dense.Order.Name, dense.Order.Every, dense.Calls = "dense", 5*time.Millisecond, nil
	for at := .4; at < 94; at += .005 {
		c := traffic.Call{Number: len(dense.Calls) + 1, At: after(at), Took: span(.001), Outcome: traffic.Answered}
		if cut(at, &c); len(dense.Calls)%1371 == 1370 {
			c.Outcome, c.Detail = traffic.RefusedByServer, "remote error: tls: bad certificate"
		}
		dense.Calls = append(dense.Calls, c)
	}
	r.Streams = []traffic.Stream{stream(.4, 94, traffic.Fresh, cut), dense, inside}
	r.Verdicts = []trial.Verdict{
		{Verdict: traffic.Verdict{Says: "no call passes while the network is cut", Rule: traffic.NoneAnswered, Stream: "quotes", From: after(20.7), Until: after(52)}, Result: trial.Holds},
		{Verdict: traffic.Verdict{Says: "calls inside of cluster1.com are answered throughout", Rule: traffic.AllAnswered, Stream: "inside", From: after(.4)}, Result: trial.Holds},
		{Verdict: traffic.Verdict{Says: "calls are answered again after the network is repaired", Rule: traffic.AnsweredBy, Stream: "quotes", From: after(58.4)},
			Result: trial.DoesNotHold, Why: "call 439 at 88.0 s was not answered: server-failed: status 503"},
	}
	return r
}

// empty ended at its first step.
func empty() trial.Record {
	r := record("drift/unmanaged-relationship", "A relationship that was made by hand is removed by the controller manager.", 0)
	r.Ended = r.Began
	s := step("call across the federation", "", 0, 0)
	s.Error = "start the probe's calls: connection refused"
	r.Steps = []trial.Step{s}
	r.Error = s.Name + ": " + s.Error
	return r
}

// evil would be obeyed by a browser or a terminal where it is not escaped.
const evil = `</title></style></svg></desc><script>alert(1)</script><img src=x onerror="alert(2)">'"` + "\x1b[31m\x00\u202e\n"

// filled says the same wherever a record has room for a text.
func filled(text string) trial.Record {
	r := partition()
	r.Scenario, r.Claim, r.Lab, r.Mutation, r.Error = "evil/"+text, text, text, text, text
	r.Labels, r.Sources = []string{text}, []string{text, "javascript:" + text, "https://host.example/" + text, "data:text/html," + text}
	r.Steps = append(r.Steps, trial.Step{Name: text, Look: text, Began: after(60), Took: span(2), Seen: []string{text}, Error: text})
	r.Windows = append(r.Windows, trial.Window{Name: text, Injected: after(70)})
	r.Marks = append(r.Marks, trial.Mark{At: after(71), What: text})
	r.Measures = append(r.Measures, trial.Measure{What: text, At: after(1), Took: span(3), Bound: span(2), Formula: text, Result: trial.Result(text)})
	r.Holdings = append(r.Holdings, trial.Holding{At: after(3), Holder: text, Of: text, State: federation.State(text), X509: []string{text}, JWT: []string{text}})
	r.Looks = append(r.Looks, trial.Look{Of: text, At: after(3), Seen: text, Error: text})
	r.Streams = append(r.Streams, stream(1, 3, traffic.Connection(text), func(_ float64, c *traffic.Call) {
		c.Outcome, c.Detail = traffic.Outcome(text), text
	}))
	last := &r.Streams[len(r.Streams)-1]
	last.From, last.Order.Name, last.Order.Server = text, text, text
	last.Calls[0].Outcome, last.Calls[0].Server = traffic.Answered, &traffic.Party{ID: text, Authority: text}
	r.Verdicts = append(r.Verdicts, trial.Verdict{Verdict: traffic.Verdict{Says: text, Rule: traffic.Rule(text), Stream: text}, Result: trial.Result(text), Why: text})
	return r
}

// stored are the records that have golden files.
func stored() []trial.Record {
	return []trial.Record{rotation(), failed(), partition(), empty()}
}
