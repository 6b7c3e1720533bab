package cli

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/doctor"
	"github.com/fedlab-dev/fedlab/lab/evidence/redact"
	"github.com/fedlab-dev/fedlab/lab/images"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/lab/troubles"
)

// shortLines is how many lines doctor --short prints at most.
const shortLines = 25

func (c *cmd) doctor() *cobra.Command {
	var symptom, junit string
	var short, noCalls bool
	command := &cobra.Command{
		Use:     "doctor",
		GroupID: "lab",
		Short:   "Say what is wrong with a lab: the cause first, and what follows from it",
		Long: `doctor looks at a lab as status and drift do, and further: each bundle endpoint is
asked from its own cluster and from each truster's, the X509-SVID and a JWT-SVID of each
workload are validated by what each truster's server holds, and pods are found that no
entry gives an identity. From the container of each workload it makes one call to each
workload that the lab file lets it call, and one with an SVID that nobody has signed,
which must be refused; --no-calls leaves both out.

Each diagnosis has an ID, what was seen, what it means and what to do. What follows from
a diagnosis is listed below it. 'fedlab explain ID' says more. Notes are about what
others have made; a lab with nothing but notes is well.

With --symptom it begins with what a person sees: a message, a few words, or the URL of a
page of the lab. It ends with the one cause that shows so. 'fedlab explain symptoms' lists
the symptoms that it knows.

The exit code is 3 when something is wrong.`,
		Example: `  fedlab doctor
  fedlab doctor --symptom "unknown authority"
  fedlab doctor --symptom http://localhost:8080/quotes
  fedlab doctor --short`,
		Args: noArgsButLab,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if short && c.output == "json" {
				return usage(cmd, errors.New("--short is text for people and -o json is for programs: want one of them"))
			}
			if junit != "" {
				if err := replaceable(junit); err != nil {
					return err
				}
			}
			return c.withLab(cmd, func(d *local.Driver, t topology.Topology) error {
				parts, ids, err := searched(t, symptom)
				if err != nil {
					return usage(cmd, err)
				}
				r, err := d.Doctor(cmd.Context(), t, !noCalls)
				if err != nil {
					return err
				}
				if junit != "" {
					if _, err := writeWhole(junit, func(w io.Writer) error { return doctorJUnit(w, r) }); err != nil {
						return err
					}
				}
				well := r.Well
				if symptom != "" {
					r = behind(r, parts, ids)
				}
				x := examined{Report: r, Symptom: symptom, Log: quote(cmd.Context(), d, t, r)}
				switch {
				case c.output == "json":
					err = c.json("Doctor", x)
				case short:
					err = printShort(c.Out, x, t)
				default:
					err = printDoctor(c.Out, x)
				}
				if err == nil && !well {
					err = errDiagnosed
				}
				return err
			})
		},
	}
	command.Flags().StringVar(&symptom, "symptom", "", "begin with what a person sees: a message, a few words, or the URL of a page")
	command.Flags().BoolVar(&noCalls, "no-calls", false, "make no calls between workloads")
	command.Flags().BoolVar(&short, "short", false, fmt.Sprintf("print at most %d lines, versions first, for pasting", shortLines))
	command.Flags().StringVar(&junit, "junit", "", "also write a case for each diagnosis as JUnit's XML")
	return command
}

// examined is a report as doctor shows it.
type examined struct {
	doctor.Report
	Symptom string `json:"symptom,omitempty"`
	// Log has the end of a log that is about the first diagnosis. It decided nothing.
	Log []string `json:"log,omitempty"`
}

// searched returns where a symptom leads: to parts of the lab, or to diagnoses that show so.
func searched(t topology.Topology, symptom string) (parts []doctor.Part, ids []doctor.ID, err error) {
	if symptom == "" {
		return nil, nil, nil
	}
	var pages []string
	for _, w := range t.Workloads {
		if w.URL() == "" {
			continue
		}
		if pages = append(pages, w.URL()); strings.TrimSuffix(symptom, "/") == w.URL() {
			parts = append(parts, doctor.Part{Kind: doctor.Workload, Name: w.Name})
			for _, to := range w.Calls {
				parts = append(parts, doctor.Part{Kind: doctor.Call, Name: w.Name + "->" + to})
			}
		}
	}
	if parts != nil {
		return parts, nil, nil
	}
	if strings.Contains(symptom, "://") && !strings.Contains(symptom, " ") && !strings.HasPrefix(symptom, "spiffe://") {
		return nil, nil, fmt.Errorf("no workload of the lab has the page %s%s", symptom, oneOf(symptom, pages))
	}
	for _, s := range matching(symptom) {
		ids = append(ids, s.IDs...)
	}
	if ids == nil {
		return nil, nil, fmt.Errorf("doctor knows no symptom like %q: 'fedlab explain symptoms' lists those that it knows; without --symptom it says all that is wrong", symptom)
	}
	return nil, ids, nil
}

// matching returns the symptoms that words are about.
func matching(words string) (some []doctor.Symptom) {
	all := doctor.Symptoms()
	entries := each(all, func(s doctor.Symptom) troubles.Entry { return troubles.Entry{Title: s.Says, Message: true} })
	for _, e := range troubles.Find(entries, words) {
		some = append(some, all[slices.Index(entries, e)])
	}
	return some
}

// behind returns a report with the one cause of a symptom.
func behind(r doctor.Report, parts []doctor.Part, ids []doctor.ID) doctor.Report {
	some := r.Of(ids)
	if parts != nil {
		some = r.Behind(parts...)
	}
	r.Diagnoses = append([]doctor.Diagnosis{}, some[:min(1, len(some))]...)
	return r
}

// quote returns the end of the log of the server, or of its agent, that the first diagnosis
// is about; nothing where there is none to be read, which the diagnosis tells.
func quote(ctx context.Context, d *local.Driver, t topology.Topology, r doctor.Report) []string {
	const lines, since, within = 3, 10 * time.Minute, 5 * time.Second
	if len(r.Diagnoses) == 0 || r.Diagnoses[0].Note {
		return nil
	}
	g, err := topology.Resolve(t, netip.Prefix{})
	if err != nil {
		return nil
	}
	first := r.Diagnoses[0].Part
	name, peer, _ := strings.Cut(first.Name, "->")
	s, err := g.FindServer(name)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var log bytes.Buffer
	if first.Kind == doctor.Agents {
		err = d.AgentLogs(ctx, s.Home(), access.LogOptions{Since: since}, &log)
	} else {
		container := spire.ServerContainer
		if first.Kind == doctor.Manager {
			container = spire.ControllerManagerContainer
		}
		err = d.ServerLogs(ctx, s, container, access.LogOptions{Since: since}, &log)
	}
	text, unread := redact.Text(ctx, log.Bytes())
	if err != nil || unread != nil {
		return nil
	}
	said := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(text)), "\n"), func(line string) bool {
		return line == "" || !strings.Contains(line, peer)
	})
	return said[max(0, len(said)-lines):]
}

func printDoctor(out io.Writer, x examined) error {
	var b strings.Builder
	line := func(name, text string) {
		if text = strings.TrimSpace(text); text != "" {
			const indent = "           "
			_, _ = fmt.Fprintf(&b, "  %-9s%s\n", name, strings.TrimPrefix(wrapped(text, indent), indent))
		}
	}
	for i, d := range x.Diagnoses {
		note := ""
		if d.Note {
			note = " (a note)"
		}
		_, _ = fmt.Fprintf(&b, "%s: %s%s\n", d.ID, d.Part, note)
		line("seen", strings.ReplaceAll(d.Seen, "\n", "; "))
		line("means", d.Cause)
		line("do", d.Cure)
		if i == 0 {
			for _, said := range x.Log {
				line("log", said)
			}
		}
		for _, f := range d.Follows {
			line("so", fmt.Sprintf("%s: %s: %s", f.ID, f.Part, firstLine(f.Seen)))
		}
		b.WriteString("\n")
	}
	_, _ = fmt.Fprintln(&b, verdictOf(x))
	_, err := io.WriteString(out, b.String())
	return err
}

// verdictOf says in a line how it ended.
func verdictOf(x examined) string {
	answered, refused := 0, 0
	for _, call := range x.Calls {
		if _, wrong := doctor.OfCall(call.Outcome); !wrong {
			answered++
		}
		if call.Stranger == string(traffic.RefusedByServer) {
			refused++
		}
	}
	text := fmt.Sprintf("Looked for %s", brief(time.Duration(x.TookSeconds*float64(time.Second))))
	if n := len(x.Calls); n > 0 {
		text += fmt.Sprintf("; %d of %s answered, %d of %d strangers refused", answered, count(n, "call"), refused, n)
	}
	causes := len(slices.DeleteFunc(slices.Clone(x.Diagnoses), func(d doctor.Diagnosis) bool { return d.Note }))
	switch {
	case x.Symptom != "" && len(x.Diagnoses) == 0 && x.Well:
		return text + ": nothing is wrong that shows so, and nothing else is."
	case x.Symptom != "" && len(x.Diagnoses) == 0:
		return text + ": nothing is wrong that shows so. 'fedlab doctor' says what else is."
	case causes == 0:
		return text + ": nothing is wrong."
	}
	return text + ": " + count(causes, "cause") + ". 'fedlab explain ID' says more."
}

// printShort prints versions, the size of the lab, and each diagnosis in a line.
func printShort(out io.Writer, x examined, t topology.Topology) error {
	versions := []string{"fedlab " + versionText()}
	for _, one := range images.Components() {
		if slices.Contains([]string{"SPIRE", "SPIRE Controller Manager", "Kubernetes", "MetalLB", "kind"}, one.Name) {
			versions = append(versions, one.Name+" "+one.Version)
		}
	}
	lines := []string{
		listing(versions),
		fmt.Sprintf("lab %s: %s, %s, %s, %s", x.Lab, count(len(t.Clusters), "cluster"), count(len(t.TrustDomains), "trust domain"),
			count(len(t.Relationships), "relationship"), count(len(t.Workloads), "workload")),
	}
	const longest = 200
	for _, d := range x.Diagnoses {
		seen := []rune(strings.ReplaceAll(fmt.Sprintf("%s: %s: %s", d.ID, d.Part, d.Seen), "\n", "; "))
		if len(seen) > longest {
			seen = append(seen[:longest:longest], '…')
		}
		lines = append(lines, string(seen))
		if n := len(d.Follows); n > 0 {
			lines = append(lines, fmt.Sprintf("  and %s from that, such as %s: %s", count(n, "more"), d.Follows[0].ID, d.Follows[0].Part))
		}
	}
	if left := len(lines) - (shortLines - 2); left > 0 {
		lines = append(lines[:shortLines-2], fmt.Sprintf("… and %s", count(left, "line")))
	}
	_, err := fmt.Fprintln(out, strings.Join(append(lines, verdictOf(x)), "\n"))
	return err
}

// doctorJUnit writes a case for each diagnosis that there is. One fails for each cause.
func doctorJUnit(w io.Writer, r doctor.Report) error {
	type failure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
	type testCase struct {
		Name     string    `xml:"name,attr"`
		Class    string    `xml:"classname,attr"`
		Failures []failure `xml:"failure"`
	}
	type suite struct {
		XMLName  xml.Name   `xml:"testsuite"`
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Time     string     `xml:"time,attr"`
		Cases    []testCase `xml:"testcase"`
	}
	all := suite{Name: "fedlab doctor " + r.Lab, Time: fmt.Sprintf("%.3f", r.TookSeconds)}
	for _, id := range doctor.IDs() {
		one := testCase{Name: string(id), Class: "doctor"}
		for _, d := range r.Diagnoses {
			if d.ID == id && !d.Note {
				one.Failures = append(one.Failures, failure{d.Part.String() + ": " + d.Seen, d.Cause + "\n" + d.Cure})
			}
		}
		if all.Tests++; one.Failures != nil {
			all.Failures++
		}
		all.Cases = append(all.Cases, one)
	}
	text, err := xml.MarshalIndent(all, "", "  ")
	if err == nil {
		_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, text)
	}
	return err
}
