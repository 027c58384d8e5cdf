"""The causes in words: three sentences each, and advice that cannot be tried by itself."""

EXPLANATIONS = {
    "bad_data": (
        "The data that came in here is not a usable number: {detail}. Everything computed "
        "from it, the gradients included, is spoilt. Look at this batch where it is loaded, "
        "and drop or repair such samples before they reach the model."
    ),
    "bad_target": (
        "The target, not the prediction, is at fault: {detail}. No prediction has a finite "
        "cost against it. Check labels where they are made; a label must not point at a "
        "masked class."
    ),
    "log_of_zero": (
        "{op} was given 0, and log(0) is -inf. The 0 is a rounded probability: the true "
        "number is small but positive, and the format has no room for it. Compute the "
        "logarithm directly (log_softmax, logsigmoid, a loss that takes logits) instead of "
        "taking log of a rounded result."
    ),
    "division_by_zero": (
        "{op} divided by 0. A norm, a sum or a spread was exactly 0 here, for a zero vector "
        "or because small squares round to 0. Divide by something that is never 0: put an "
        "epsilon that the dtype can hold inside, or normalise with a function that guards it."
    ),
    "overflow": (
        "{op} made a number beyond the largest that {dtype} holds, {limit}. Its inputs were "
        "finite ({detail}); their product, power or sum is not representable. Scale before, "
        "use a formula that subtracts or divides by the maximum first, or compute this step "
        "in a wider dtype."
    ),
    "domain_error": (
        "{op} was given a number outside its domain: {detail}. Rounding often pushes a value "
        "just over the edge. Keep its input inside the domain, a little away from the edge, "
        "where the slope is finite too."
    ),
    "singular_gradient": (
        "The value of {op} is finite here, but its slope is infinite: {detail}. The backward "
        "pass divides by 0. Keep the input away from this point with an epsilon inside the "
        "function, not on its result."
    ),
    "masked_branch_gradient": (
        "The forward pass hides the bad entries of {op} (torch.where, indexing or a mask "
        "drops them), the backward pass does not: a zero gradient times an infinite slope is "
        "NaN. Masking the result is too late. Replace the masked inputs by a harmless number "
        "before {op}."
    ),
    "empty_reduction": (
        "{op} reduced over nothing: {detail}. A mean of nothing is 0/0, and a sample "
        "deviation of one element too. Guard the empty case: divide by max(count, 1) or skip "
        "the term."
    ),
    "fully_masked": (
        "A whole row of {op} is masked with -inf. The softmax of nothing is 0/0, and its "
        "gradient is NaN even where the row is thrown away later. Keep one entry of each row, "
        "or use a finite mask and zero the row afterwards."
    ),
    "masked_times_zero": (
        "{op} multiplied 0 by an infinity that stood for a mask, which is NaN, not 0. "
        "Weights, smoothing or probabilities of 0 do not switch off -inf. Select with "
        "torch.where instead of multiplying, or mask with a finite number."
    ),
    "cancellation": (
        "{op} got a difference of two nearly equal numbers, of which rounding left {detail}. "
        "The true difference is a small positive number. Use a formula without the "
        "subtraction (mean of squared deviations, not mean of squares minus squared mean), or "
        "a wider dtype."
    ),
    "epsilon_underflow": (
        "The small constant that should protect {op} is 0 in {dtype}: it is below the "
        "smallest number of the format. The guard is not there. Choose an epsilon that "
        "{dtype} can hold, such as {eps}, or compute this part in fp32."
    ),
    "divergence": (
        "Numbers grew step by step until {op} overflowed: {detail}. This operation is only "
        "where it shows; each update made the next one larger. Lower the learning rate, warm "
        "it up, or clip the gradient's norm."
    ),
    "divergence/rate": (
        "The optimiser's rate, or another of its settings, is not a finite number at this step, "
        "and {op} multiplied the update by it. Gradients and weights were finite ({detail}). "
        "Look at the schedule: a division by the steps left, a logarithm or power of the step."
    ),
    "bad_target/ctc": (
        "A target cannot be aligned with its input: it is longer than the frames there are, or "
        "repeats need more of them, and the cost of what is impossible is infinite. The "
        "predictions are not at fault ({detail}). Drop such samples, or set zero_infinity=True."
    ),
    "initialization": (
        "The weights were unusable from the start: {detail}. {op} is the first operation that "
        "shows it. Initialise every parameter, with a spread of about 1/sqrt(fan in)."
    ),
    "optimizer_state": (
        "The optimiser's own arithmetic broke in {op}: gradients and weights were finite "
        "({detail}). Its state holds squares of gradients, which overflow or vanish long "
        "before the gradients do. Keep the state in fp32, clip gradients, or raise the "
        "optimiser's epsilon."
    ),
    "gradient_clipping": (
        "Clipping did this: {detail}. The clipped gradients are no longer a scaled copy of "
        "the true ones. Clip after unscale_, and guard a norm that overflows or is not "
        "finite."
    ),
    "loss_scale_collapse": (
        "The gradient scaler skipped step after step and its scale fell to {detail}. Skips "
        "are normal at the start; here no scale is small enough, because the gradients are "
        "not finite at any. Find the operation named here; the scale is the symptom."
    ),
    "lost_update": (
        "The weights do not move: {detail}. An update below half a unit in the last place "
        "rounds away, at every step. Keep a copy of the weights in fp32, raise the rate, or "
        "round stochastically."
    ),
    "dead_output": (
        "The output is finite, and wrong: {detail}. Something before overflowed or died, and "
        "a later operation turned it into a harmless-looking constant. No gradient comes back "
        "through it, so that nothing will be learnt from here on."
    ),
    "activation_mismatch": (
        "The last activation does not fit the loss: {detail}. The loss is finite but is not "
        "the intended one, and its gradient is weak or zero. Hand this loss exactly what its "
        "documentation asks for."
    ),
    "poisoned_buffer": (
        "A buffer of this layer is not finite: {detail}. A bad batch was skipped, but its "
        "statistics stayed in the running averages. Reset the buffer, and check batches "
        "before the forward pass instead of after it."
    ),
    "degenerate_linalg": (
        "{op} was given a matrix that is singular, or has equal eigenvalues or singular "
        "values. Its result or its gradient divides by their difference. Add a small multiple "
        "of the identity, or use a formulation that does not need this decomposition."
    ),
    "unknown/rank": (
        "The loss and the gradients that this rank computed are finite; what is not came in when "
        "the ranks' gradients were averaged. It began on another rank. Read the report of the "
        "rank that names an operation ({detail})."
    ),
    "unknown": (
        "{op} is where it starts, but the evidence fits none of the known causes. Its inputs "
        "are below ({detail}). Run the step again with harness.watch for a closer look."
    ),
}

# What cannot be tried on one step.
ADVICE = {
    "bad_data": (
        "Find this batch's samples that are not finite, or far outside the others, in the loader."
    ),
    "bad_target": "Check the labels of this batch: finite, in range, and never a masked class.",
    "divergence": "Lower the learning rate 3 to 10 times, or warm it up; clip the gradient's norm.",
    "initialization": "Initialise with torch.nn.init (a spread of about 1/sqrt(fan in)).",
    "optimizer_state": "Keep optimiser state in fp32, or raise eps.",
    "gradient_clipping": (
        "Clip after scaler.unscale_(optimizer), and by a norm that cannot overflow: divide the "
        "gradients by their largest entry first."
    ),
    "loss_scale_collapse": "Cure the operation named here; then the scale recovers by itself.",
    "lost_update": "Keep master weights in fp32 and cast them for the forward pass.",
    "dead_output": "Compute the overflowing part in fp32, or replace the dead activation.",
    "activation_mismatch": (
        "Hand logits to cross_entropy, log-probabilities to nll_loss, probabilities to "
        "binary_cross_entropy."
    ),
    "poisoned_buffer": "Reset the running statistics and check batches before the forward pass.",
    "unknown": "Wrap the step with harness.watch(...).step(function, batch) for its replay.",
}
