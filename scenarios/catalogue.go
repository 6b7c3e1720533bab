// Package scenarios is the catalogue: what is broken on purpose, a file for each
// family, and what is claimed of each in one sentence.
//
// It refuses to know how a scenario runs and how a lab is reached: it is written
// in the words of package trial, as a scenario of another repository is.
package scenarios

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// Labels that scenarios may have besides their group.
const (
	// Slow takes more than two minutes.
	Slow = "slow"
	// CI is for those that run on every submission.
	CI = "ci"
)

// Catalogue returns all scenarios, in the order in which documents list them.
func Catalogue() []trial.Scenario {
	return []trial.Scenario{
		authorityReplaced, revokedTooEarly, jwtAuthorityReplaced, threeGenerations, signedBeforePoll, belowUpstream, servingCertReplaced,

		serverAway, bothServersAway, replicaAway, serverKilled, serverDataLost, datastoreAway,
		agentAway, agentKilled, agentBanned, bundleConfigMapLost, controllerManagerHangs, webhookAway,
		endpointAway, clusterOff, clustersParted, laptopSleeps, openConnection, bundleNeverCame, endpointHangs,

		noRoute,

		serverUpgraded, agentUpgraded,

		bundleDeleted, deleteModes, bundleTampered, bundleOfAnother, bundleRolledBack, bundleEmptied, lyingEndpoint,
		pinnedBundleEdited, otherFieldEdited, twoResources, relationshipByCommand, relationshipRemoved,
		endpointDeadlock, staleByWeb, staleByHand,

		strangerCalls, oneWay, entryWithoutFederatesWith, selectorTooNarrow, selectorTooBroad, wrongParent, twoIdentities,
		wrongEndpointID, wrongProfile, impersonation, lyingWorkload, noIdentity, expiredSVID, wrongToken, resumedSession,
	}
}

// UnknownError says that the catalogue has no scenario, or no label, of a name.
type UnknownError struct {
	// What is "scenario" or "label".
	What, Name string
	// Known are those that there are.
	Known []string
}

func (e *UnknownError) Error() string { return fmt.Sprintf("there is no %s %q", e.What, e.Name) }

// Names returns the names of all scenarios, in the order of the catalogue.
func Names() []string {
	var names []string
	for _, s := range Catalogue() {
		names = append(names, s.Name)
	}
	return names
}

// Find returns the scenario of a name. The error is an *UnknownError.
func Find(name string) (trial.Scenario, error) {
	for _, s := range Catalogue() {
		if s.Name == name {
			return s, nil
		}
	}
	return trial.Scenario{}, &UnknownError{What: "scenario", Name: name, Known: Names()}
}

// Labels returns the labels that scenarios have, in the order of the catalogue.
func Labels() []string {
	var all []string
	for _, s := range Catalogue() {
		for _, l := range s.AllLabels() {
			if !slices.Contains(all, l) {
				all = append(all, l)
			}
		}
	}
	return all
}

// Labelled returns the scenarios that have a label. The error is an
// *UnknownError when none has.
func Labelled(label string) ([]trial.Scenario, error) {
	found := slices.DeleteFunc(Catalogue(), func(s trial.Scenario) bool { return !slices.Contains(s.AllLabels(), label) })
	if len(found) == 0 {
		return nil, &UnknownError{What: "label", Name: label, Known: Labels()}
	}
	return found, nil
}

// Shuffled returns scenarios in an order that a seed decides.
func Shuffled(all []trial.Scenario, seed uint64) []trial.Scenario {
	mixed := slices.Clone(all)
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
	return mixed
}
